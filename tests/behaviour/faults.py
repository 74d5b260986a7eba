"""Faults between a store and its engine."""

from __future__ import annotations

from uringblob.completion import Completion


class _Rerouted:
    """Has an engine's writes into sinks go through its ``write``, which is patched."""

    def __init__(self, engine) -> None:
        self._engine = engine

    def __call__(self, offset, frames, sink):
        sink.keep = frames
        self._engine.write(offset, frames).forward(sink)
        return True


class FailingWrites:
    """While entered, writes of ``kind`` end with ``-errno``, from the ``nth`` on, ``count`` of them.

    ``kind`` is ``"frame"``, ``"log"`` (a block that begins with the log's mark) or ``"any"``; such
    a write is cut in the middle if ``short`` says how many of its bytes are written first.
    ``failed`` counts.  ``grow`` fails too if ``growth`` is true.
    """

    MARK = b"ublk"

    def __init__(self, store, errno, *, kind="frame", nth=1, count=1 << 30, short=0, growth=False):
        self._engine = store._core.file_io.engine
        self._loop = store._loop
        self._errno = errno
        self._kind = kind
        self._nth = nth
        self._left = count
        self._short = short
        self._growth = growth
        self.failed = 0

    def __enter__(self):
        self._real = self._engine
        for name in ("write", "write_then_sync", *(["grow"] if self._growth else [])):
            setattr(self._engine, name, getattr(self, f"_{name}"))
        self._engine.start_write = _Rerouted(self._engine)
        return self

    def __exit__(self, *_):
        for name in ("write", "write_then_sync", *(["grow"] if self._growth else [])):
            delattr(self._engine, name)
        del self._engine.start_write

    def _strikes(self, frames):
        kind = "log" if bytes(frames[0].view[:4]) == self.MARK else "frame"
        if self._kind not in (kind, "any"):
            return False
        self._nth -= 1
        if self._nth > 0 or self._left <= 0:
            return False
        self._left -= 1
        self.failed += 1
        return True

    def _answer(self, value):
        completion = Completion(loop=self._loop)
        completion.resolve(value)
        return completion

    def _write(self, offset, frames):
        write = type(self._engine).write
        if not self._strikes(frames):
            return write(self._engine, offset, frames)
        if self._short:
            # What a real disk does: a part first, and the error for the rest.
            part, self._short = frames[0].part(0, self._short), 0
            self._nth, self._left = 1, self._left + 1
            return write(self._engine, offset, [part])
        return self._answer(-self._errno)

    def _write_then_sync(self, offset, frames):
        if not self._strikes(frames):
            return type(self._engine).write_then_sync(self._engine, offset, frames)
        return self._answer((-self._errno, -125))

    def _grow(self, size):
        self.failed += 1
        return self._answer(-self._errno)
