"""What the real engines asked of the system, replayed on a simulated disk: order, bytes, links and all.

Of io_uring every entry is seen as the kernel took it, with its flags and its file; of pread every
call of every thread.  A flush begins when the kernel may begin it: an fsync that is linked behind a
write when that write has ended well, any other one at once.  A flush of another file is none.
"""

from __future__ import annotations

import random
import threading

from sim.rig import PAGE, Judge, frame, guid, read_all
from uringblob import AsyncFileBlobStore, _native
from uringblob.ring import Opcode, SqeFlags
from uringblob.testing import History, SimDisk
from uringblob.testing.sim.image import Image

_WRITES = {Opcode.WRITE, Opcode.WRITE_FIXED}
_GATHERS = {Opcode.WRITEV, Opcode.WRITEV_FIXED}


def image_of(path: str) -> Image:
    with open(path, "rb") as file:
        data = file.read()
    image = Image(size=len(data))
    image.write(0, data.ljust(-(-len(data) // 4096) * 4096, b"\0"))
    return image


class _Noted:
    """A sink in front of an operation's own; each of ``then`` gets the result first."""

    def __init__(self, sink) -> None:
        self._sink = sink
        self.light = sink.light
        self.then = []

    def complete(self, result, mismatch=0):
        then, self.then = self.then, []
        for note in then:
            note(result)
        self._sink.complete(result, mismatch)

    def reject(self, error):
        self._sink.reject(error)


class Shadow:
    """The disk under a real engine, as a power cut might find it; ``on_step`` is told of every change."""

    def __init__(self, path: str, on_step) -> None:
        self.disk = SimDisk(image=image_of(path))
        self._on_step = on_step
        self._lock = threading.RLock()
        self.syncs = self.linked = 0

    def watch(self, engine) -> None:
        self.disk.on_step = self._on_step
        if engine.name == "io_uring":
            self._ring = engine.ring
            engine.ring.trace = self._submitted
        else:
            self._fd, calls = engine._fd, engine._calls
            engine._calls = calls._replace(
                writev=lambda *a: self._write(calls.writev, *a), sync=lambda fd: self._sync(calls.sync, fd)
            )

    # --- io_uring --------------------------------------------------------------------------

    def _submitted(self, operations) -> None:
        before = None
        for user_data, op in operations:
            table = self._ring._in_flight.table
            done = table[user_data] = _Noted(table[user_data])
            if op.opcode in _WRITES | _GATHERS:
                data = _bytes_of(op)
                write = self.disk.begin_write(op.offset, data)
                done.then.append(lambda result, write=write: self.disk.finish_write(write, max(0, result)))
            elif op.opcode == Opcode.FSYNC and op.file == 0 and op.flags & SqeFlags.FIXED_FILE:
                self._fsync(done, before)
            before = (done, op) if op.flags & SqeFlags.IO_LINK else None

    def _fsync(self, done, before) -> None:
        covered = []
        self.syncs += 1
        if before is None:
            covered += self.disk.begin_sync(failing=False)
        else:
            self.linked += 1
            before[0].then.append(lambda _result: covered.extend(self.disk.begin_sync(failing=False)))
        done.then.append(lambda result: result or self.disk.finish_sync(covered))

    # --- pread -----------------------------------------------------------------------------

    def _write(self, real, fd, views, offset) -> int:
        with self._lock:
            write = self.disk.begin_write(offset, b"".join(views))
        moved = real(fd, views, offset)
        with self._lock:
            self.disk.finish_write(write, moved)
        return moved

    def _sync(self, real, fd) -> None:
        with self._lock:
            self.syncs += 1
            covered = self.disk.begin_sync(failing=False) if fd == self._fd else []
        real(fd)
        with self._lock:
            self.disk.finish_sync(covered)


def _bytes_of(op) -> bytes:
    ffi = _native.ffi
    if op.opcode in _WRITES:
        return bytes(ffi.buffer(ffi.cast("void *", op.address), op.length))
    pieces = ffi.cast("struct iovec *", op.address)
    return b"".join(bytes(ffi.buffer(pieces[i].iov_base, pieces[i].iov_len)) for i in range(op.length))


async def judged(path: str, engine: str, seed: int = 1) -> tuple[int, Shadow]:
    """Work on a real store; judge every image that a power cut may have left; return how many."""
    async with AsyncFileBlobStore.open(path, engine=engine, page_size=PAGE) as store:
        await store.commit([(guid(n), frame(900 + n)) for n in range(12)])
        await store.commit((), [guid(n) for n in range(6, 12)])
    history, judge, moments, rng = History(), Judge(looks=20), [], random.Random(seed)

    def step(_why: str) -> None:
        known = history.knowledge()
        moments.extend((image, known) for image in shadow.disk.all_crashes(6, torn=rng))

    shadow = Shadow(path, step)
    async with AsyncFileBlobStore.open(path, engine=engine) as store:
        history.recovered(await read_all(store))
        shadow.watch(store._core.file_io.engine.engine)
        for turn in range(6):
            both = {guid(turn): frame(10 + turn), guid(turn + 1): frame(20 + turn)}
            call = history.begin("commit", both, atomic=True)
            await store.commit(list(both.items()))
            history.end(call, durable=True)
            synced = {guid(turn + 2): frame(30 + turn)}
            call = history.begin("synced", synced)
            leases = [store.alloc_blob_buf_uninit() for _ in synced]
            for lease, content in zip(leases, synced.values(), strict=True):
                lease.view[:] = content
            await store.write_blobs_with_data_sync(list(zip(synced, leases, strict=True)))
            history.end(call)
            began = history._tick()
            await store.flush()
            history.flushed(began)
            for lease in leases:
                lease.release()
    for image, known in moments:
        judge.look(image, known)
    return judge.judged, shadow
