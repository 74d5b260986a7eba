"""What ``verify()`` calls and returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from uringblob.errors import BlobStoreError
from uringblob.guid import BlobGuid

#: Called as ``progress(done, total)``, in blobs.
Progress = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True)
class VerifyReport:
    """What ``store.verify()`` returns: a frozen list of everything that is wrong.

    A call that its deadline has ended reports what it has reached, and where to resume.
    """

    #: Each bad blob with the error that reading it raises.
    bad: tuple[tuple[BlobGuid, BlobStoreError], ...] = ()
    #: What is wrong with superblocks and log, where a store has them.
    metadata_errors: tuple[BlobStoreError, ...] = ()
    #: Blobs that were read, bad ones included.
    blobs_checked: int = 0
    #: Bytes of good frames.
    bytes_checked: int = 0
    #: The last blob that was checked before the deadline: pass it as ``since`` to go on behind it.  ``None``
    #: after the last blob and the metadata, which are checked at the end: the next call begins anew.
    resume: BlobGuid | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong: no bad blob and no bad metadata, as far as was checked."""
        return not self.bad and not self.metadata_errors

    def __str__(self) -> str:
        head = f"{self.blobs_checked} blobs checked, {len(self.bad)} bad"
        if self.metadata_errors:
            head += f", {len(self.metadata_errors)} metadata errors"
        if self.resume is not None:
            head += f"; the time was over: resume with since={self.resume}"
        lines = [f"{guid}: {error}" for guid, error in self.bad]
        lines += [f"metadata: {error}" for error in self.metadata_errors]
        return "\n".join([head, *lines])
