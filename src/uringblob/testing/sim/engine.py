"""The engine of a simulated disk: requests wait until the seed lets one of them complete."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import Callable, Sequence

from uringblob.buffers.checksum import frame_checksum
from uringblob.buffers.iobuf import IoBuffer
from uringblob.buffers.leases import BufferPool
from uringblob.completion import Completion, Sink
from uringblob.engines.base import IoCounters
from uringblob.testing.sim.disk import Fault, SimDisk
from uringblob.testing.sim.loop import SimLoop

#: Fewer zeros are no hole.
_HOLE_BYTES_MIN = 1 << 20

#: Ends one request.
_Finish = Callable[[], None]


class SimEngine:
    """An :class:`~uringblob.engines.base.Engine` on a :class:`SimDisk`.

    ``rng`` chooses which request completes next and when; without it they complete in order, in
    the next round of the loop.  ``instant``: each is complete when the call returns, so that
    nothing is ever in flight: three times as fast, for a search through many images.
    """

    name = "simulated"
    reason = "asked for"
    memory_align = 1
    blocking = False

    def __init__(
        self,
        disk: SimDisk,
        loop: SimLoop,
        page_size: int,
        *,
        rng: random.Random | None = None,
        direct_io: bool = True,
        instant: bool = False,
    ) -> None:
        self.disk = disk
        self.direct_io = direct_io
        self.pool = BufferPool(page_size, None, asked=0)
        self._loop = loop
        self._rng = rng
        self._instant = instant
        self.counters = IoCounters()
        self._waiting: list[_Finish] = []
        self._slow = 0  # requests in flight that end at a time, not by chance
        self._closing: asyncio.Future[None] | None = None
        loop.add_device(self._poll)

    def __repr__(self) -> str:
        return f"<SimEngine in_flight={self.in_flight} on {self.disk!r}>"

    @property
    def in_flight(self) -> int:
        """Requests that have not completed."""
        return len(self._waiting) + self._slow

    def sinks(self) -> list[Sink]:
        """Return nothing: no signal handler raises here, so nobody asks."""
        return []

    def _when_complete(self, finish: _Finish, fault: Fault | None) -> None:
        if fault is not None and fault.delay_s:
            self._slow += 1
            self._loop.call_later(fault.delay_s, self._finish_late, finish)
        elif self._instant:
            finish()
        else:
            self._waiting.append(finish)

    def _finish_late(self, finish: _Finish) -> None:
        self._slow -= 1
        finish()
        if self._closing is not None and not self.in_flight and not self._closing.done():
            self._closing.set_result(None)

    def _poll(self, idle: bool) -> bool:
        waiting, rng = self._waiting, self._rng
        if not waiting:
            return False
        if rng is None:
            self._waiting = []
            for finish in waiting:
                finish()
            return True
        moved = False
        while self._waiting and rng.random() < (0.35 if moved or not idle else 1.0):
            self._waiting.pop(rng.randrange(len(self._waiting)))()
            moved = True
        return moved

    # --- requests ------------------------------------------------------------------------

    def read(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        done = self._completion()
        self._read(offset, frames, done.resolve)
        return done

    def _read(self, offset: int, frames: Sequence[IoBuffer], then: Callable[[int], None]) -> None:
        self.counters.reads += 1
        fault = self.disk.next_fault("read")
        size = sum(frame.size for frame in frames)

        def finish() -> None:
            if fault is not None and fault.errno:
                then(-fault.errno)
                return
            read = self.disk.read_stale if fault is not None and fault.stale else self.disk.read
            data = read(offset, _moved(fault, size))
            at = 0
            for frame in frames:
                part = data[at : at + frame.size]
                frame.view[: len(part)] = part
                at += len(part)
            self.counters.bytes_read += len(data)
            then(len(data))

        self._when_complete(finish, fault)

    def read_now(self, offset: int, frame: IoBuffer) -> int:  # noqa: ARG002 - the protocol's
        """Return 0, which sends the read to the loop: nothing may block here."""
        return 0

    def write(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[int]:
        done = self._completion()
        self._write(offset, frames, done.resolve)
        return done

    def _write(self, offset: int, frames: Sequence[IoBuffer], then: Callable[[int], None]) -> None:
        self.counters.writes += 1
        disk = self.disk
        fault = disk.next_fault("write")
        data = b"".join([frame.view for frame in frames])
        if fault is None and disk.no_room_for(offset, len(data)):
            fault = Fault(errno.ENOSPC)
        write = disk.begin_write(offset, data)

        def finish() -> None:
            if b"".join([frame.view for frame in frames]) != data:
                raise AssertionError(f"memory changed under a write in flight to offset {offset}")
            if fault is not None and fault.errno:
                disk.tear_write(write)
                then(-fault.errno)
                return
            moved = _moved(fault, len(data))
            if fault is not None and fault.lost:
                disk.lose_write(write)
            elif fault is not None and fault.to is not None:
                disk.misdirect_write(write, fault.to)
            else:
                disk.finish_write(write, moved)
            self.counters.bytes_written += moved
            then(moved)

        self._when_complete(finish, fault)

    def start_read(self, offset: int, frame: IoBuffer, want: int | None, sink: Sink) -> bool:
        def read(got: int) -> None:
            whole = want is not None and got == frame.size
            sink.complete(got, whole and frame_checksum(frame.view) != want)

        self._read(offset, (frame,), read)
        return True

    def start_write(self, offset: int, frames: Sequence[IoBuffer], sink: Sink) -> bool:
        self._write(offset, frames, sink.complete)
        return True

    def start_sync(self, sink: Sink) -> bool:
        self._sync(sink.complete)
        return True

    def poll(self) -> None:
        """Do nothing: the loop's rounds complete requests."""

    def run_until(self, done: Callable[[], bool]) -> None:
        """Do nothing: nothing blocks here, so the loop goes on."""

    def push(self) -> None:
        """Do nothing: every request is in flight at once."""

    def write_then_sync(self, offset: int, frames: Sequence[IoBuffer]) -> Completion[tuple[int, int]]:
        done: Completion[tuple[int, int]] = Completion(loop=self._loop)
        size = sum(frame.size for frame in frames)

        def written(rc: int) -> None:
            if rc != size:
                done.resolve((rc, -errno.ECANCELED))
            else:
                self.counters.linked_syncs += 1
                self._sync(lambda synced: done.resolve((rc, synced)))

        self._write(offset, frames, written)
        return done

    def sync(self) -> Completion[int]:
        done = self._completion()
        self._sync(done.resolve)
        return done

    def _sync(self, then: Callable[[int], None]) -> None:
        self.counters.syncs += 1
        fault = self.disk.next_fault("sync")
        number = 0 if fault is None else fault.errno
        covered = self.disk.begin_sync(failing=bool(number))

        def finish() -> None:
            self.disk.finish_sync(covered)
            then(-number)

        self._when_complete(finish, fault)

    def grow(self, size: int) -> Completion[int]:
        done = self._completion()
        fault = self.disk.next_fault("grow")
        number = 0 if fault is None else fault.errno
        self._when_complete(lambda: done.resolve(-number or self.disk.grow(size)), fault)
        return done

    def cut(self, size: int) -> Completion[int]:
        return self._space("cut", lambda: self.disk.cut(size))

    def punch(self, offset: int, size: int) -> Completion[int]:
        return self._space("punch", lambda: self.disk.punch(offset, size))

    def allocate(self, offset: int, size: int) -> Completion[int]:
        return self._space("allocate", lambda: self.disk.allocate(offset, size))

    def _space(self, kind: str, change: Callable[[], int | None]) -> Completion[int]:
        done = self._completion()
        fault = self.disk.next_fault(kind)
        number = 0 if fault is None else fault.errno
        self._when_complete(lambda: done.resolve(-number or change() or 0), fault)
        return done

    def file_size(self) -> int:
        return self.disk.live.size

    def next_data(self, offset: int) -> int:
        data = self.disk.live.next_data(offset)
        if data - offset < _HOLE_BYTES_MIN:
            return offset
        return data if data < self.file_size() else -errno.ENXIO

    def _completion(self) -> Completion[int]:
        return Completion(loop=self._loop)

    # --- the end -------------------------------------------------------------------------

    async def close(self) -> None:
        while self._waiting:
            tick: asyncio.Future[None] = self._loop.create_future()
            self._loop.call_soon(tick.set_result, None)
            await tick
        if self._slow:
            self._closing = self._loop.create_future()
            await self._closing
        self._loop.remove_device(self._poll)

    def abandon(self) -> None:
        self._loop.remove_device(self._poll)


def _moved(fault: Fault | None, size: int) -> int:
    if fault is None or fault.moved is None:
        return size
    return max(0, min(size, fault.moved(size)))
