"""The library's one logger, ``"uringblob"``, and the fields that its records carry.

Every record has ``event`` (one of ``EVENTS``) and, where they are known, the other ``FIELDS`` as
attributes, so a formatter can print ``record.__dict__`` as JSON.

An error that is raised to a caller is not logged.  The log has what is not raised (a fallback, a
dropped group, failed maintenance) and the event that changes every later call (``poisoned``).
"""

from __future__ import annotations

import logging

logger = logging.getLogger("uringblob")

#: The events, with their level.
EVENTS = {
    "opened": "INFO: a store was opened; ``engine`` and why",
    "engine_fallback": "WARNING: io_uring was refused at ``stage`` with ``errno``; pread does the work",
    "group_dropped": "WARNING: after an unclean end the last, unconfirmed group ``seq`` is left out",
    "blobs_lost": "ERROR: the file is shorter than its map; these blobs are ``BlobCorrupt`` now",
    "compaction_failed": "WARNING: the log was not shortened; the store goes on with the long one",
    "vacuum_skipped": "WARNING: a frame is not what was written, or cannot be read: a vacuum left it where it is",
    "collection_failed": "WARNING: a store in a bucket did not write its map, or did not delete garbage; a later group tries again",
    "lease_failed": "WARNING: a store in a bucket could not renew its lease (INFO: give it back); it tries again",
    "outcome_unknown": "INFO: a store in a bucket could not look what became of a commit; ``refresh`` looks again",
    "upload_failed": "WARNING: a tier could not upload what is waiting; it tries again, or says why not",
    "not_uploaded": "WARNING: a tier was closed before all was uploaded; the next opener goes on",
    "not_kept": "WARNING: a frame that a tier fetched did not find room in its local store",
    "tombstones_stay": "WARNING: a tier could not delete the marks of uploaded deletions; it tries again",
    "opened_full": "WARNING: there is no room to repair what a crash left, so changes are refused until there is",
    "closed_unsealed": "INFO: there was no room to seal the log; the next opener does what it does after a crash",
    "poisoned": "ERROR: an I/O failed and what the medium holds is unknown; changes are refused",
    "close_failed": "WARNING: the last flush or the seal failed; the error is raised by ``close``, too",
    "callback_failed": "ERROR: a callback of yours on a completion raised",
    "observer_failed": "ERROR: an observer of yours raised; the observed call is not affected",
}

#: The attributes that records carry beside ``event``.
FIELDS = {
    "path": "the store file",
    "engine": "``io_uring`` or ``pread``: the engine in use",
    "stage": "which step of starting io_uring was refused",
    "errno": "the system's answer; 0 where there was none",
    "guid": "the blob at fault, as text",
    "offset": "where in the file, in bytes",
    "seq": "the sequence number of a group",
    "blobs": "a count of blobs",
    "operation": "the method that an observer was called for",
}
