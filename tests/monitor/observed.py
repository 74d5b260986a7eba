"""An engine of which somebody hears every request, its bytes and its end."""

from __future__ import annotations

import asyncio
import errno

#: What an observer hears where a request ended without an answer of the system's.
_LOST = -errno.EIO

#: What an engine's refusal to put a result into a sink counts as: nothing was asked of the system.
_NOT_BEGUN = -errno.ECANCELED


class ObservedEngine:
    """Any engine, seen by ``observer``; the store cannot tell it from the engine itself.

    The observer hears of a request before the engine does, and of its end before the store does:
    a completion's first resumption is the observer's.
    """

    def __init__(self, engine, observer) -> None:
        self.engine = engine
        self.observer = observer
        self.name = engine.name
        self.reason = engine.reason
        self.direct_io = engine.direct_io
        self.memory_align = engine.memory_align
        self.pool = engine.pool

    def __repr__(self) -> str:
        return f"<ObservedEngine {self.engine!r}>"

    def __getattr__(self, name):
        return getattr(self.engine, name)

    @property
    def blocking(self):
        return self.engine.blocking

    @blocking.setter
    def blocking(self, blocking):
        self.engine.blocking = blocking

    def read(self, offset, frames):
        # Nothing can come between: a read may be told of when it was asked for.
        observer, done = self.observer, self.engine.read(offset, frames)
        if not done.done():
            token = observer.read_begins(offset, frames)
            done.add_immediate_callback(lambda ended: observer.read_ends(token, _answer(ended)))
        elif observer.recording:
            observer.record(frames, offset, _answer(done))
        else:
            observer.looked(frames, offset, _answer(done))
        return done

    def read_now(self, offset, frame):
        visit = self.observer.visit_begins(offset, frame)
        try:
            return self.engine.read_now(offset, frame)
        finally:
            self.observer.visit_ends(visit)

    def write(self, offset, frames):
        observer = self.observer
        token = observer.write_begins(offset, frames)
        return _ask(self.engine.write, (offset, frames), observer.write_ends, token)

    # Into a sink: what observes takes the result first.

    def start_read(self, offset, frame, want, sink):
        token = self.observer.read_begins(offset, (frame,))
        return self._start(
            self.engine.start_read, (offset, frame, want), self.observer.read_ends, token, sink
        )

    def start_write(self, offset, frames, sink):
        token = self.observer.write_begins(offset, frames)
        return self._start(self.engine.start_write, (offset, frames), self.observer.write_ends, token, sink)

    def start_sync(self, sink):
        token = self.observer.sync_begins()
        return self._start(self.engine.start_sync, (), self.observer.sync_ends, token, sink)

    def _start(self, request, arguments, record_end, token, sink):
        seen = ObservedSink(sink, record_end, token)
        try:
            begun = request(*arguments, seen)
        except BaseException:
            seen.end(_LOST)
            raise
        if not begun:
            if request == self.engine.start_sync:
                seen.record_end = self.observer.sync_never_began
            seen.end(_NOT_BEGUN)
        return begun

    def cut(self, size):
        self.observer.space_given_back("cut", size)
        return self.engine.cut(size)

    def punch(self, offset, size):
        self.observer.space_given_back("punch", offset, offset + size)
        return self.engine.punch(offset, size)

    def write_then_sync(self, offset, frames):
        observer = self.observer
        token = observer.write_begins(offset, frames), observer.sync_begins()
        return _ask(self.engine.write_then_sync, (offset, frames), observer.both_end, token)

    def sync(self):
        observer = self.observer
        return _ask(self.engine.sync, (), observer.sync_ends, observer.sync_begins())


class ObservedSink:
    """A sink in front of the store's."""

    def __init__(self, sink, record_end, token):
        self.sink = sink
        self.light = sink.light
        self.keep = None
        self.record_end = record_end
        self.token = token

    def end(self, result):
        record_end, self.record_end = self.record_end, None
        token, self.token = self.token, None  # it holds the frames, which are the caller's from now on
        if record_end is not None:
            record_end(token, result)

    def complete(self, result, mismatch=0):
        self.end(result)
        self.keep = None
        self.sink.complete(result, mismatch)

    def reject(self, error):
        self.end(_LOST)
        self.sink.reject(error)


def _ask(request, arguments, hear, token):
    try:
        done = request(*arguments)
    except BaseException:
        hear(token, _LOST)
        raise
    if done.done():
        hear(token, _answer(done))
    else:
        done.add_immediate_callback(lambda ended: hear(token, _answer(ended)))
    return done


def _answer(done):
    try:
        return done.result()
    except (Exception, asyncio.CancelledError):
        return _LOST  # no completion can be cancelled, but for a planted bug
