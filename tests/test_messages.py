"""Messages, as their reader: what happened, to what, and what to do."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid

import pytest

import uringblob
from uringblob import (
    AsyncFileBlobStore,
    BlobCorrupt,
    BlobGuid,
    BlobNotFound,
    BlobStoreIOError,
    FileBlobStore,
    MemoryBlobStore,
    StoreCorrupt,
    StoreLocked,
)
from uringblob.errors import check_rc, encodable
from uringblob.store.lock_holder import lock_holders

PAGE = 4096
GUID = BlobGuid(bytes(range(16)))
FRAME = bytes(PAGE)


@pytest.fixture(params=["file", "memory"])
def store(request, store_path):
    if request.param == "memory":
        with MemoryBlobStore(PAGE) as made:
            yield made
    else:
        with FileBlobStore.open(store_path, page_size=PAGE) as made:
            yield made


CALLS = {
    "a dict of writes": (lambda s: s.commit({GUID: FRAME}), TypeError, "items() of a dict"),
    "a dict of writes, in write_blobs": (lambda s: s.write_blobs({GUID: FRAME}), TypeError, "items()"),
    "a dict of reads": (lambda s: s.read_blobs({GUID: bytearray(PAGE)}), TypeError, "items()"),
    "one pair": (lambda s: s.write_blobs_with_data_sync((GUID, FRAME)), TypeError, "pair in a list"),
    "a tuple of four": (lambda s: s.commit([(GUID, FRAME, b"", 1)]), ValueError, "a tuple of 4"),
    "a number as metadata": (lambda s: s.commit([(GUID, FRAME, 1)]), TypeError, "bytes, not int"),
    "text as metadata": (lambda s: s.write_blob(GUID, FRAME, "x"), TypeError, "not str: encode it"),
    "much metadata": (
        lambda s: s.write_blob(GUID, FRAME, bytes(256)),
        ValueError,
        "at most 255 bytes, not 256",
    ),
    "one guid to delete": (lambda s: s.commit(deletes=GUID), TypeError, "deletes=[guid]"),
    "one UUID to delete": (lambda s: s.commit(deletes=uuid.UUID(int=1)), TypeError, "deletes=[guid]"),
    "text as a guid": (lambda s: s.has_blob(str(GUID)), TypeError, "BlobGuid(text)"),
    "text as a frame": (lambda s: s.write_blob(GUID, "text"), TypeError, "not str: encode it"),
    "text as a frame of a batch": (lambda s: s.commit([(GUID, "text")]), TypeError, "not str"),
    "None as a frame": (lambda s: s.read_blob(GUID, None), TypeError, "not NoneType"),
    "None as a part": (lambda s: s.read_blob_range(GUID, 0, None), TypeError, "not NoneType"),
    "bytes to be filled": (lambda s: s.read_blob(GUID, FRAME), ValueError, "writable"),
    "half a frame": (lambda s: s.write_blob(GUID, FRAME[1:]), ValueError, "one whole frame"),
    "no such blob": (lambda s: s.read_blob(GUID, bytearray(PAGE)), BlobNotFound, "list_blobs()"),
}


@pytest.mark.unobserved(
    "the monitor walks over what a commit deletes, and would meet the bytes of a single guid"
)
@pytest.mark.parametrize("case", CALLS)
def test_a_call_that_makes_no_sense_says_what_would(store, case):
    call, kind, words = CALLS[case]
    with pytest.raises(kind) as caught:
        call(store)
    assert words in str(caught.value)
    assert store.list_blobs() == []


OPTIONS = {
    "lock_timeout": (None, TypeError, "0 does not wait"),
    "queue_depth": (1.5, TypeError, "queue_depth must be an int, not float"),
    "buffers": ("many", TypeError, "buffers must be an int, not str"),
    "mode": (None, TypeError, "mode must be an int, not NoneType"),
    "direct": (0, TypeError, "direct must be True, False or None, not 0"),
    "engine": ("foo", ValueError, "not 'foo'"),
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", [FileBlobStore, AsyncFileBlobStore])
def test_an_option_of_a_wrong_type_is_named(kind, name, store_path):
    value, error, words = OPTIONS[name]
    with pytest.raises(error) as caught:
        kind.open(store_path, **{name: value})
    assert name in str(caught.value)
    assert words in str(caught.value)
    assert not os.path.exists(store_path)


def test_the_variable_is_named_where_it_is_at_fault(store_path, monkeypatch):
    monkeypatch.setenv("URINGBLOB_ENGINE", "foo")
    with pytest.raises(ValueError, match="environment variable URINGBLOB_ENGINE is 'foo'"):
        FileBlobStore.open(store_path)
    FileBlobStore.open(store_path, engine="pread").close()  # named, so the variable does not matter


def test_an_empty_path_is_no_file():
    """It was taken for the current directory."""
    for kind in (FileBlobStore, AsyncFileBlobStore):
        with pytest.raises(FileNotFoundError) as caught:
            kind.open("")
        with pytest.raises(FileNotFoundError) as expected:
            os.open("", os.O_RDWR)
        assert str(caught.value) == str(expected.value)


async def test_a_forgotten_await_is_named(store_path):
    opening = AsyncFileBlobStore.open(store_path)
    for use in ("read_blob", "stats", "page_size"):
        with pytest.raises(AttributeError, match=f"{use}.*await AsyncFileBlobStore.open"):
            getattr(opening, use)
    with pytest.raises(TypeError, match="async with"), opening:
        pass
    await (await opening).aclose()


# --- errors of our own ------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["some text", b"short", 7, ("a", "b")])
def test_an_error_that_a_users_store_raises_is_never_hidden_by_another(given):
    assert str(BlobNotFound(given)) == str(given)
    assert BlobNotFound(given).guid is None
    assert str(BlobNotFound(given, "gone")) == "gone"
    assert BlobCorrupt("bad", given).guid is None
    assert BlobStoreIOError(errno.EIO, "bad", guid=given).guid is None


@pytest.mark.parametrize("given", [GUID, bytes(GUID), GUID.uuid, str(GUID), GUID.hex()])
def test_an_error_knows_a_guid_in_every_form(given):
    assert BlobNotFound(given).guid == GUID
    assert str(BlobNotFound(given)) == f"no blob {GUID}"


def test_an_error_may_be_raised_without_a_word():
    assert str(BlobNotFound()) == "no such blob"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_names_a_remedy(number):
    with pytest.raises(BlobStoreIOError, match=r"delete blobs, or .* and try again"):
        check_rc(-number, "writing")


def test_messages_can_be_encoded_whatever_the_file_is_called(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9"
    with FileBlobStore.open(path, page_size=PAGE) as opened:
        with pytest.raises(BlobNotFound) as caught:
            opened.read_blob(GUID, bytearray(PAGE))
        with pytest.raises(StoreLocked) as locked:
            FileBlobStore.open(path, lock_timeout=0)
    with open(path, "r+b") as file:
        file.write(b"nonsense" * 1024)
    with pytest.raises(StoreCorrupt) as corrupt:
        FileBlobStore.open(path)
    for error in (caught, locked, corrupt):
        assert rb"caf\xe9" in str(error.value).encode("utf-8", "strict")
    assert encodable("caf\u00e9 \ud800") == "caf\u00e9 \\ud800"


# --- files ------------------------------------------------------------------------------------


def test_zeroed_superblocks_are_said_to_be_zero(store_path):
    FileBlobStore.open(store_path, page_size=PAGE).close()
    with open(store_path, "r+b") as file:
        file.write(bytes(8192))
    with pytest.raises(
        StoreCorrupt, match=r"both superblocks are zero.*restore the store from a copy"
    ) as caught:
        FileBlobStore.open(store_path)
    assert caught.value.offset == 0


def test_an_empty_file_is_said_to_be_empty(store_path):
    open(store_path, "wb").close()
    with pytest.raises(StoreCorrupt, match="but an empty file: remove it"):
        FileBlobStore.open(store_path)


def test_the_offset_that_a_message_has_is_the_errors_too(store_path):
    with FileBlobStore.open(store_path, page_size=PAGE) as opened:
        opened.commit([(GUID, FRAME)])
        slot = opened._core._core.index.find(bytes(GUID)) >> 64
    with open(store_path, "r+b") as file:
        file.seek(slot * PAGE)
        file.write(b"x")
    with FileBlobStore.open(store_path) as opened, pytest.raises(BlobCorrupt) as caught:
        opened.read_blob(GUID, bytearray(PAGE))
    assert caught.value.offset == slot * PAGE
    assert f"(offset {slot * PAGE})" in str(caught.value)


HOLD = """
import sys
from uringblob import FileBlobStore
with FileBlobStore.open(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="n/a: this system does not list its locks")
def test_a_locked_store_names_the_process_that_holds_it(store_path):
    FileBlobStore.open(store_path, page_size=PAGE).close()
    command = [sys.executable, "-c", HOLD, store_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(StoreLocked, match=rf"by another opener, process {child.pid} \("):
            FileBlobStore.open(store_path, lock_timeout=0)
        child.communicate()
    FileBlobStore.open(store_path).close()


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="n/a: this system does not list its locks")
def test_a_store_that_this_process_has_open_says_so(store_path):
    with FileBlobStore.open(store_path), pytest.raises(StoreLocked, match="this process itself"):
        FileBlobStore.open(store_path, lock_timeout=0)


def test_a_process_that_only_has_the_file_open_is_not_accused(store_path):
    FileBlobStore.open(store_path).close()
    with open(store_path, "rb") as file:
        assert lock_holders(file.fileno()) == []


# --- what is looked at -------------------------------------------------------------------------


def test_the_package_shows_its_public_names():
    assert dir(uringblob) == sorted(uringblob.__all__)


@pytest.mark.parametrize("kind", [FileBlobStore, AsyncFileBlobStore])
def test_the_mode_is_shown_as_people_write_it(kind):
    import inspect

    assert "= 0o600" in str(inspect.signature(kind.open))
