"""The proof: a real store in the directory, with each engine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from uringblob.cli.doctor.check_result import CheckResult, Level
from uringblob.cli.doctor.smoke_test_directory import trial_directory
from uringblob.errors import BlobStoreError, EngineUnavailable, encodable, errno_name
from uringblob.guid import BlobGuid
from uringblob.logs import logger
from uringblob.sync.file_store import FileBlobStore

_PAGE_SIZE = 4096


def check_store(engine: str, directory: str) -> CheckResult:
    """Make a store with this engine, commit a frame, open it again, and read the frame."""
    field = "uring" if engine == "io_uring" else "pread"
    name = f"store on {engine}"
    try:
        # Its warnings would say a second time what the diagnosis says.
        with trial_directory(directory) as place, _quiet():
            text = _commit_and_read(os.path.join(place, "trial.blobs"), engine)
    except EngineUnavailable as error:
        facts = {"uring_store": error.errno or -1, "uring_stage": error.stage, "uring_text": str(error)}
        return CheckResult(name, f"no: refused at {error.stage}", Level.BAD, facts)
    except (BlobStoreError, OSError) as error:
        number = getattr(error, "errno", None) or -1
        # The trial's own name tells nobody anything.
        why = f"{encodable(directory)}: {errno_name(number)}" if number > 0 else str(error)
        facts = {f"{field}_store": number, f"{field}_text": why}
        return CheckResult(name, f"no: {why}", Level.BAD, facts)
    return CheckResult(name, text, facts={f"{field}_store": 0})


def _commit_and_read(path: str, engine: str) -> str:
    guid, frame, back = BlobGuid.random(), os.urandom(_PAGE_SIZE), bytearray(_PAGE_SIZE)
    with FileBlobStore.open(path, engine=engine, page_size=_PAGE_SIZE) as store:
        store.commit([(guid, frame)])
    with FileBlobStore.open(path, engine=engine, create=False) as store:
        store.read_blob(guid, back)
        stats = store.stats()
    if back != frame:
        raise BlobStoreError("the frame read is not the frame written")
    return f"committed, reopened and read; {'O_DIRECT' if stats.direct_io else 'through the page cache'}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The log ``uringblob`` says nothing meanwhile."""
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was
