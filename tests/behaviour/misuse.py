"""The one table of misuse: what may be called wrongly, how, and the error of the contract."""

from __future__ import annotations

import array
import inspect
import uuid

import numpy as np

from uringblob import AlignedBlobBuf, BlobGuid

SIZE = 8192
HERE, THERE, ABSENT = (BlobGuid(bytes([n]) * 16) for n in (1, 2, 3))


async def call(function, *args):
    """Call a method of either face."""
    result = function(*args)
    return await result if inspect.isawaitable(result) else result


def good(number=7):
    return bytes([number]) * SIZE


def _released():
    buffer = AlignedBlobBuf.zeroed(SIZE)
    buffer.release()
    return buffer


def _released_view():
    view = memoryview(bytearray(SIZE))
    view.release()
    return view


#: What no guid is.
GUIDS = {
    "short": (lambda: b"short", ValueError),
    "empty": (lambda: b"", ValueError),
    "too long": (lambda: bytes(17), ValueError),
    "text": (lambda: "0123456789abcdef", TypeError),
    "hex text": (lambda: str(uuid.UUID(int=1)), TypeError),
    "int": (lambda: 1, TypeError),
    "None": (lambda: None, TypeError),
    "bytearray": (lambda: bytearray(16), TypeError),
    "memoryview": (lambda: memoryview(bytes(16)), TypeError),
}

#: What no frame is, to write from or to read into.
BUFFERS = {
    "empty": (bytearray, ValueError),
    "one byte short": (lambda: bytearray(SIZE - 1), ValueError),
    "one byte long": (lambda: bytearray(SIZE + 1), ValueError),
    "two frames": (lambda: bytearray(2 * SIZE), ValueError),
    "another page size": (lambda: AlignedBlobBuf.zeroed(4096), ValueError),
    "as many items, not bytes": (lambda: array.array("I", bytes(4 * SIZE)), ValueError),
    "every other byte": (lambda: memoryview(bytearray(2 * SIZE))[::2], ValueError),
    "backwards": (lambda: memoryview(bytearray(SIZE))[::-1], ValueError),
    "in Fortran's order": (lambda: np.zeros((64, SIZE // 64), "u1", order="F"), ValueError),
    "released": (_released, ValueError),
    "a released view": (_released_view, ValueError),
    "a list": (lambda: [0] * SIZE, TypeError),
    "text": (lambda: "x" * SIZE, TypeError),
    "int": (lambda: SIZE, TypeError),
    "None": (lambda: None, TypeError),
}

#: What can be written from, but not read into.
READ_ONLY = {
    "bytes": (good, ValueError),
    "a read-only view": (lambda: memoryview(bytearray(SIZE)).toreadonly(), ValueError),
    "a read-only array": (lambda: np.frombuffer(good(), "u1"), ValueError),
}

#: Calls with a guid, with a frame to write from, with one to read into.
BY_GUID = {
    "read_blob": lambda s, g: s.read_blob(g, bytearray(SIZE)),
    "write_blob": lambda s, g: s.write_blob(g, good()),
    "delete_blob": lambda s, g: s.delete_blob(g),
    "has_blob": lambda s, g: s.has_blob(g),
    "has_blobs": lambda s, g: s.has_blobs([HERE, g]),
    "checksum": lambda s, g: s.checksum(g),
    "stat_blob": lambda s, g: s.stat_blob(g),
    "write_blobs": lambda s, g: s.write_blobs([(HERE, good()), (g, good())]),
    "write_blobs_with_data_sync": lambda s, g: s.write_blobs_with_data_sync([(HERE, good()), (g, good())]),
    "read_blobs": lambda s, g: s.read_blobs([(HERE, bytearray(SIZE)), (g, bytearray(SIZE))]),
    "read_blob_range": lambda s, g: s.read_blob_range(g, 0, bytearray(SIZE)),
    "commit writes": lambda s, g: s.commit([(HERE, good()), (g, good())]),
    "commit deletes": lambda s, g: s.commit([(HERE, good())], [THERE, g]),
}
FROM = {
    "write_blob": lambda s, b: s.write_blob(HERE, b),
    "write_blobs": lambda s, b: s.write_blobs([(HERE, good()), (THERE, b)]),
    "write_blobs, overwritten": lambda s, b: s.write_blobs([(HERE, b), (HERE, good())]),
    "write_blobs_with_data_sync": lambda s, b: s.write_blobs_with_data_sync([(HERE, good()), (THERE, b)]),
    "commit": lambda s, b: s.commit([(HERE, good()), (ABSENT, b)], [THERE]),
}
INTO = {
    "read_blob": lambda s, b: s.read_blob(HERE, b),
    "read_blob of none": lambda s, b: s.read_blob(ABSENT, b),
    "read_blobs": lambda s, b: s.read_blobs([(HERE, bytearray(SIZE)), (THERE, b)]),
}

#: Everything else.
OTHERS = {
    "write_blobs of no pairs": (lambda s: s.write_blobs([HERE]), (TypeError, ValueError)),
    "write_blobs of None": (lambda s: s.write_blobs(None), TypeError),
    "write_blobs of fours": (lambda s: s.write_blobs([(HERE, good(), b"", 1)]), ValueError),
    "write_blobs with a number": (lambda s: s.write_blobs([(HERE, good(), 1)]), TypeError),
    "write_blob with much metadata": (lambda s: s.write_blob(HERE, good(), bytes(256)), ValueError),
    "read_blobs of None": (lambda s: s.read_blobs(None), TypeError),
    "commit of None": (lambda s: s.commit(None), TypeError),
    "commit deletes None": (lambda s: s.commit([], None), TypeError),
    "commit of both": (lambda s: s.commit([(HERE, good())], [bytes(HERE)]), ValueError),
    "commit of both, the uuid": (lambda s: s.commit([(HERE, good())], [HERE.uuid]), ValueError),
    "has_blobs of one": (lambda s: s.has_blobs(HERE), TypeError),
    "iter_blobs beyond a short one": (lambda s: s.iter_blobs(b"short"), ValueError),
    "iter_blobs, less than none": (lambda s: s.iter_blobs(limit=-1), ValueError),
    "iter_blobs, a half": (lambda s: s.iter_blobs(limit=0.5), TypeError),
    "verify, progress no function": (lambda s: s.verify(5), TypeError),
    "vacuum, no time": (lambda s: s.vacuum(max_time=-1.0), ValueError),
    "backup into itself": (lambda s: s.backup(s), ValueError),
    "backup into nothing": (lambda s: s.backup(None), TypeError),
    "backup at no rate": (lambda s: s.backup(s, rate=0), ValueError),
    "range unaligned": (lambda s: s.read_blob_range(HERE, 1, bytearray(4096)), ValueError),
    "range of 512": (lambda s: s.read_blob_range(HERE, 512, bytearray(512)), ValueError),
    "range before": (lambda s: s.read_blob_range(HERE, -4096, bytearray(4096)), ValueError),
    "range behind": (lambda s: s.read_blob_range(HERE, SIZE, bytearray(4096)), ValueError),
    "range over the end": (lambda s: s.read_blob_range(HERE, 4096, bytearray(SIZE)), ValueError),
    "range of text": (lambda s: s.read_blob_range(HERE, "0", bytearray(4096)), TypeError),
    "range of a fraction": (lambda s: s.read_blob_range(HERE, 4096.0, bytearray(4096)), TypeError),
    "range into bytes": (lambda s: s.read_blob_range(HERE, 0, bytes(4096)), ValueError),
    "range into steps": (lambda s: s.read_blob_range(HERE, 0, memoryview(bytearray(SIZE))[::2]), ValueError),
    "range into a list": (lambda s: s.read_blob_range(HERE, 0, [0] * 4096), TypeError),
}


def _rows():
    for calls, wrong in ((BY_GUID, GUIDS), (FROM, BUFFERS), (INTO, {**BUFFERS, **READ_ONLY})):
        for name, function in calls.items():
            for what, (make, error) in wrong.items():
                yield f"{name}, {what}", lambda s, f=function, m=make: f(s, m()), error
    for name, (function, error) in OTHERS.items():
        yield name, function, error


#: The whole table: what, how to do it, the error.
MISUSES = list(_rows())

#: Every public method, used rightly: for stores that may not be used any more, or not here.
PLAIN = {
    "alloc_blob_buf_zeroed": lambda s: s.alloc_blob_buf_zeroed(),
    "alloc_blob_buf_uninit": lambda s: s.alloc_blob_buf_uninit(),
    "needs_flush": lambda s: s.needs_flush(),
    "iter_blobs": lambda s: s.iter_blobs(),
}
METHODS = {
    **{name: lambda s, f=function: f(s, HERE) for name, function in BY_GUID.items()},
    "list_blobs": lambda s: s.list_blobs(),
    "flush": lambda s: s.flush(),
    "verify": lambda s: s.verify(),
    "snapshot": lambda s: s.snapshot(),
    "vacuum": lambda s: s.vacuum(),
    "backup": lambda s: s.backup("nowhere"),
    "commit of nothing": lambda s: s.commit(),
}
#: What ``open`` refuses, before there is a file.
OPTIONS = [
    ({"page_size": 0}, ValueError),
    ({"page_size": 5000}, ValueError),
    ({"page_size": 2048}, ValueError),
    ({"page_size": (1 << 26) + 4096}, ValueError),
    ({"page_size": -4096}, ValueError),
    ({"page_size": "4096"}, TypeError),
    ({"page_size": 4096.0}, TypeError),
    ({"engine": "aio"}, ValueError),
    ({"engine": None}, (TypeError, ValueError)),
    ({"buffers": -1}, ValueError),
    ({"buffers": "many"}, TypeError),
    ({"buffers": 0.5}, TypeError),
    ({"queue_depth": 0}, ValueError),
    ({"queue_depth": -1}, ValueError),
    ({"queue_depth": 2.5}, TypeError),
    ({"lock_timeout": -1}, ValueError),
    ({"lock_timeout": "long"}, TypeError),
    ({"mode": "0600"}, TypeError),
    ({"unknown": 1}, TypeError),
]
