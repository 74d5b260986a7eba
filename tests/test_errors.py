import copy
import errno
import pickle

import pytest

from uringblob import errors
from uringblob.guid import BlobGuid

GUID = BlobGuid(bytes(range(16)))
PLAIN = [
    errors.BlobStoreError,
    errors.StoreCorrupt,
    errors.StoreLocked,
    errors.StoreClosed,
    errors.StoreReadOnly,
    errors.StorePoisoned,
    errors.PageSizeMismatch,
]
EVERY = [
    *(kind("what happened") for kind in PLAIN),
    errors.BlobNotFound(GUID),
    errors.BlobNotFound(GUID, "gone"),
    errors.BlobCorrupt("bad checksum", GUID),
    errors.BlobCorrupt("bad checksum"),
    errors.EngineUnavailable("refused", errno.EPERM, "setup"),
    errors.BlobStoreIOError(errno.EIO, "fdatasync failed", guid=GUID, applied=None),
]


def ids(error):
    return type(error).__name__


@pytest.mark.parametrize("error", EVERY, ids=ids)
def test_all_have_one_root(error):
    assert isinstance(error, errors.BlobStoreError)


@pytest.mark.parametrize("error", EVERY, ids=ids)
@pytest.mark.parametrize("clone", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_pickled_and_copied(error, clone):
    twin = clone(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    for name in ("guid", "errno", "stage", "applied", "strerror"):
        assert getattr(twin, name, "none") == getattr(error, name, "none")


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
        errors.check_rc(-errno.ENOSPC, "read of slot 3", guid=GUID, applied=None)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.guid == GUID
    assert caught.value.applied is None


def test_errno_names():
    assert errors.errno_name(errno.ENOSPC).startswith("ENOSPC (")
    assert errors.errno_name(4095).startswith("4095 (")
