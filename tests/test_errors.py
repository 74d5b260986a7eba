import concurrent.futures
import copy
import errno
import multiprocessing
import os
import pickle
import subprocess
import sys

import pytest

from uringblob import errors
from uringblob.api.stats import StoreStats
from uringblob.api.verify_report import VerifyReport
from uringblob.engines.transfers import SyncFailed
from uringblob.guid import BlobGuid
from uringblob.ring import RingStats
from uringblob.store.log.compaction import CompactionStopped

GUID = BlobGuid(bytes(range(16)))
PLAIN = [
    errors.BlobStoreError,
    errors.StoreCorrupt,
    errors.StoreLocked,
    errors.StoreClosed,
    errors.StoreReadOnly,
    errors.StorePoisoned,
    errors.PageSizeMismatch,
    errors.TierDiverged,
    errors.WriterFenced,
]
EVERY = [
    CompactionStopped("stopped"),
    SyncFailed(errno.EIO, "fdatasync failed", offset=4096, applied=None),
    *(kind("what happened") for kind in PLAIN),
    errors.BlobNotFound(GUID),
    errors.BlobNotFound(GUID, "gone"),
    errors.BlobCorrupt("bad checksum", GUID),
    errors.BlobCorrupt("bad checksum"),
    errors.BlobChanged("replaced", GUID),
    errors.ConditionFailed(GUID, None, 7, "store.blobs"),
    errors.EngineUnavailable("refused", errno.EPERM, "setup"),
    errors.BlobStoreIOError(errno.EIO, "fdatasync failed", guid=GUID, applied=None),
]


def ids(error):
    return type(error).__name__


@pytest.mark.parametrize("error", EVERY, ids=ids)
def test_all_have_one_root(error):
    assert isinstance(error, errors.BlobStoreError)


def subclasses(kind):
    """Return ``kind`` and all that inherits from it in the library."""
    found = [kind] if kind.__module__.startswith("uringblob.") else []
    return found + [each for inner in kind.__subclasses__() for each in subclasses(inner)]


def test_the_table_has_every_class():
    assert {type(error) for error in EVERY} == set(subclasses(errors.BlobStoreError))


def told(error):
    """Everything that an error says."""
    names = (
        "guid",
        "expected",
        "found",
        "errno",
        "stage",
        "applied",
        "offset",
        "strerror",
        "args",
        "__notes__",
    )
    return (type(error), str(error), repr(error), [getattr(error, name, "none") for name in names])


def whole(error):
    """The same error as it is caught: with a traceback, a note, an attribute and a cause."""
    try:
        raise copy.copy(error) from errors.BlobStoreIOError(errno.EIO, "the first failure", guid=GUID)
    except errors.BlobStoreError as caught:
        caught.__notes__ = ["a note"]
        caught.more = 7
        return caught


CLONES = {
    "copied": copy.copy,
    "copied deeply": copy.deepcopy,
    **{
        f"pickled by protocol {protocol}": lambda error, protocol=protocol: pickle.loads(
            pickle.dumps(error, protocol)
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "made for another caller": errors.one_each,
}


@pytest.mark.parametrize("error", EVERY, ids=ids)
@pytest.mark.parametrize("clone", CLONES)
def test_pickled_and_copied(error, clone):
    for original in (error, whole(error)):
        twin = CLONES[clone](original)
        assert twin is not original
        assert told(twin) == told(original)
        assert getattr(twin, "more", 0) == getattr(original, "more", 0)
        cause = original.__cause__
        assert (twin.__cause__ is None) is (cause is None)
        assert cause is None or told(twin.__cause__) == told(cause)
        assert twin.__traceback__ is None


def answer(index, way):
    """In another process: return or raise one of them."""
    error = whole(EVERY[index])
    if way == "raised":
        raise error
    return error


def cross(method):
    """Send every error and value to another process and back."""
    values = [
        *(GUID, StoreStats(notes=("one", "two")), RingStats(*range(10), closed=True)),
        VerifyReport(
            bad=((GUID, errors.BlobCorrupt("bad", GUID)),), metadata_errors=(errors.StoreCorrupt("s"),)
        ),
    ]
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        for index, error in enumerate(EVERY):
            back = pool.submit(answer, index, "returned").result()
            assert told(back) == told(whole(error))
            assert told(back.__cause__) == told(whole(error).__cause__)
            with pytest.raises(type(error)) as raised:
                pool.submit(answer, index, "raised").result()
            assert (str(raised.value), raised.value.more) == (str(error), 7)
        for value, back in zip(values, pool.map(copy.copy, values), strict=True):
            assert type(back) is type(value)
            assert repr(back) == repr(value)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_every_error_and_value_crosses_to_another_process_and_back(method):
    """In an interpreter of its own: what multiprocessing starts besides stays until the end."""
    here = os.path.dirname(__file__)
    script = f"import sys; sys.path.insert(0, {here!r}); import test_errors; test_errors.cross({method!r})"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_cause_that_another_process_may_not_know_gets_there_in_words():
    error = errors.StorePoisoned("broken")
    error.__cause__ = OSError(5, "no disk", lambda: None)  # what it holds cannot be pickled
    assert copy.copy(error).__cause__ is error.__cause__
    cause = pickle.loads(pickle.dumps(error)).__cause__
    assert type(cause) is RuntimeError
    assert "OSError: [Errno 5] no disk" in str(cause)


class Stubborn(Exception):
    """Cannot be copied."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize("error", [MemoryError("none left"), ValueError("wrong", 7), OSError(5, "no disk")])
def test_one_each_of_any_error(error):
    cause = KeyError("first")
    error.__cause__ = cause
    twins = [errors.one_each(error) for _ in range(3)]
    assert len({id(each) for each in (error, *twins)}) == 4
    for twin in twins:
        assert (type(twin), twin.args, twin.__cause__) == (type(error), error.args, cause)
        twin.__notes__ = ["mine"]
    assert not hasattr(error, "__notes__")


def test_an_error_that_cannot_be_copied_is_shared_rather_than_lost():
    error = Stubborn(1, 2)
    assert errors.one_each(error) is error


def test_not_found_is_a_key_error_with_a_readable_message():
    error = errors.BlobNotFound(GUID)
    assert isinstance(error, KeyError)
    assert str(error) == f"no blob {GUID}"
    assert error.guid == GUID


def test_io_error_is_an_os_error():
    error = errors.BlobStoreIOError(errno.ENOSPC, "no room", guid=GUID)
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    assert error.guid == GUID
    assert error.applied is False


def test_engine_unavailable_keeps_errno_and_stage():
    error = errors.EngineUnavailable("no ring", errno.ENOSYS, "setup")
    assert (error.errno, error.stage) == (errno.ENOSYS, "setup")
    assert errors.EngineUnavailable("no ring").errno is None


def test_check_rc():
    assert errors.check_rc(0, "sync") == 0
    assert errors.check_rc(4096, "read") == 4096
    with pytest.raises(errors.BlobStoreIOError, match=r"read of slot 3: ENOSPC") as caught:
        errors.check_rc(-errno.ENOSPC, "read of slot 3")
    assert caught.value.errno == errno.ENOSPC


def test_errno_names():
    assert errors.errno_name(errno.ENOSPC).startswith("ENOSPC (")
    assert errors.errno_name(4095).startswith("4095 (")
