"""The floor without tasks: the callback that ends an operation begins the next.  See :mod:`.floor`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from uringblob.checksums import frame_checksum
from uringblob.completion import Completion
from uringblob.ring import Ring
from uringblob_bench.contenders.bare_file import BLOCK, BareFile
from uringblob_bench.contenders.floor import BareAsyncio
from uringblob_bench.contenders.ring import RingMemory
from uringblob_bench.drive import Chain, serve_by_callbacks
from uringblob_bench.load import Load, Verb


class _Call:
    """A worker's call in progress: it counts its operations down."""

    _then: Callable[..., None]

    def __init__(self, chain: _Callbacks, load: Load, worker: int) -> None:
        self._chain, self._file = chain, chain.file
        self._verb = load.verb
        self._frames = self._file.memory.take(load.frames)
        self._numbers = self._file.numbers(load, worker)
        self._left = 0
        self._size = self._frames[0].size
        self._verify = self._file.params.verify and load.verb is Verb.READ
        self._one = self._frames[0] if load.frames == 1 else None

    def bind(self, then: Callable[..., None]) -> Callable[[], None]:
        self._then = then
        return self.begin

    def begin(self) -> None:
        operation = self._file.read if self._verb is Verb.READ else self._file.write
        self._left = len(self._frames)
        if self._verb is Verb.COMMIT:
            self._left += 1  # for its group
        for number, frame in zip(self._numbers(), self._frames, strict=True):
            operation(number, frame).add_immediate_callback(self._moved)
        if self._verb is Verb.COMMIT:
            self._chain.join(self)

    def _moved(self, completion: Completion[int]) -> None:
        got = completion.result()
        if got != self._size:
            self._then(OSError(f"the kernel answered {got} instead of {self._size}"))
            return
        if self._verify and self._one is not None:
            frame_checksum(self._one.view)
        self.count_down()

    def count_down(self) -> None:
        self._left -= 1
        if self._left:
            return
        if self._verify and self._one is None:
            for frame in self._frames:
                frame_checksum(frame.view)
        if self._verb is Verb.BATCH:
            if self._file.ring.closed:
                return  # the turn is over: another worker's call has failed
            self._file.sync().add_immediate_callback(self._synced)
        elif self._verb is Verb.COMMIT:
            self._chain.landed()
        else:
            self._then()

    def _synced(self, completion: Completion[int]) -> None:
        got = completion.result()
        self.end(None if got == 0 else OSError(-got, "fdatasync"))

    def end(self, error: BaseException | None) -> None:
        self._then(error)


class _Callbacks:
    """No worker is a task; see :class:`BareCallbacks`."""

    def __init__(self, file: BareFile) -> None:
        self.file = file
        self._line: list[_Call] = []
        self._members: list[_Call] = []
        self._left = 0
        self._busy = False

    def call(self, load: Load, worker: int) -> Chain:
        return _Call(self, load, worker).bind

    def join(self, call: _Call) -> None:
        """Commit with the next group."""
        self._line.append(call)
        if not self._busy:
            self._group()

    def _group(self) -> None:
        self._busy = True
        if self.file.ring.closed:
            return  # the turn is over: another worker's call has failed
        self._members, self._line = self._line, []
        self._left = 1 + len(self._members)
        self.file.write_block().add_immediate_callback(self._block_written)
        for member in self._members:
            member.count_down()

    def _block_written(self, completion: Completion[int]) -> None:
        got = completion.result()
        if got == BLOCK:
            self.landed()
        else:
            self._end(OSError(f"the kernel answered {got} instead of {BLOCK}"))

    def landed(self) -> None:
        """Count a member whose frames are written, or the block."""
        self._left -= 1
        if not self._left and not self.file.ring.closed:
            self.file.sync().add_immediate_callback(self._synced)

    def _synced(self, completion: Completion[int]) -> None:
        got = completion.result()
        self._end(None if got == 0 else OSError(-got, "fdatasync"))

    def _end(self, error: BaseException | None) -> None:
        for member in self._members:
            member.end(error)  # it begins its next commit, which joins the line
        self._busy = False
        if self._line:
            self._group()


class BareCallbacks(BareAsyncio):
    """The same I/O, each call begun in the callback that ended the one before: no task takes a step."""

    name = "bare callbacks"
    serve = staticmethod(serve_by_callbacks)

    def calls(self, ring: Ring, memory: RingMemory) -> Callable[[Load, int], Any]:
        """Return what makes a chain of calls."""
        return _Callbacks(BareFile(ring, memory, self.params)).call
