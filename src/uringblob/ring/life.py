"""The end of a ring: drained and closed, or left to others.

The kernel writes into the memory of an operation until that operation's completion, whatever
becomes of the ring.  So a ring ends when all is reaped; where nobody can wait for that, the
memory is kept for ever instead.  Files and buffers are unregistered before the ring is left:
else the kernel lets go of them some time later, and a reopen finds the file locked and the
memory charged (up to 40 ms; Linux 6.18).
"""

from __future__ import annotations

import os
import warnings

from uringblob.completion import Completion, persist
from uringblob.ring.driver import RingDriver


class RingLife(RingDriver):
    """The ways a ring ends."""

    __slots__ = ()

    @property
    def closed(self) -> bool:
        """Whether the ring takes no more operations."""
        return self._closing

    async def aclose(self) -> None:
        """Take no more operations, await those there are, free the ring.

        Cancelling it does not stop it.  A second call waits for the same end.
        """
        self._closing = True
        dropped = False
        try:
            if self._is_mine() and self.in_flight:
                drained = self._when_drained()
                self.flush()
                await drained
        except GeneratorExit:
            dropped = True  # or collected, in whatever thread
            raise
        finally:
            # Nothing is freed before all is reaped, however this ends.
            if dropped or (self._is_mine() and self.in_flight):
                self.abandon()
            else:
                self._release()

    def close(self) -> None:
        """As :meth:`aclose`, but blocks.  A second call does nothing."""
        self._closing = True
        try:
            while self._is_mine() and self.in_flight:
                self.flush()
                if self.in_flight:
                    self._block()
        except OSError:  # the kernel refuses to wait
            self._leave()
            raise
        self._release()

    def abandon(self) -> None:
        """Free what can be freed without waiting: for forked children and finalizers.

        In a child: drops the child's copies, and the parent notices nothing.  In the process that
        made the ring: with operations in flight the loop frees the ring when they have ended; if
        there is no loop to do so, their memory is kept for ever.
        """
        self._closing = True
        if not self._is_mine():
            self._lib.ub_abandon(self._core)
            return
        loop = self._loop
        if loop is None or loop.is_closed():
            self._leave()
        else:
            try:
                loop.call_soon_threadsafe(self._release_when_drained)
            except RuntimeError:  # closed in this very moment
                self._leave()

    def _release_when_drained(self) -> None:
        if not self._is_mine():
            return
        drained = self._when_drained()
        drained.add_done_callback(lambda _: self._release())
        self.flush()
        if not self.in_flight:
            drained.resolve(None)

    def _when_drained(self) -> Completion[None]:
        """Return what resolves when nothing is in flight any more."""
        if self._drained is None:
            # Where that fails, the ring would outlive its loop.
            self._drained = persist(Completion, loop=self._future_loop)
        return self._drained

    def _is_mine(self) -> bool:
        """Whether there still is a ring, and this process made it."""
        return self._core.fd >= 0 and self._pid == os.getpid()

    def _leave(self) -> None:
        if self._core.accepted > self._core.reaped:
            self._in_flight.never_free()
            self._lib.ub_abandon(self._core)
        else:
            self._lib.ub_close(self._core)

    def _release(self) -> None:
        """Free the ring, in which nothing is in flight.  Does nothing the second time."""
        if not self._is_mine():
            # In a child the selector is still the parent's: the doorbell is not to be removed.
            self._lib.ub_abandon(self._core)
            return
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._core.fd)
        self._leave()

    def __del__(self) -> None:
        if getattr(self, "_core", None) is None or not self._is_mine():
            return
        try:
            if not self._closing:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
        finally:  # warnings may be errors
            self._leave()
