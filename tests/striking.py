"""A stand-in for a signal handler that runs at one chosen line of the calling thread."""

from __future__ import annotations

import contextlib
import gc
import sys


class Handler:
    """Calls ``act`` at the n-th line of this thread in ``files``, once, as a signal handler might.

    ``only``: the name of the only function that it strikes.
    """

    def __init__(self, files, act, only=None):
        self.only = only
        self.files = files
        self.act = act
        self.left = 0
        self.paused = False
        self.struck = False

    def _trace(self, scope, event, _argument):
        if scope.f_code.co_filename not in self.files or self.paused or self.struck:
            return None
        if self.only is not None and scope.f_code.co_name != self.only:
            return None
        if event == "line":
            self.left -= 1
            if self.left < 0 and not self.paused and not self.struck:
                self.struck = True
                self.act()
        return self._trace

    @contextlib.contextmanager
    def pause(self):
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def at(self, line, call):
        """Call ``call``, interrupted at the line of that number; return whether there was such a line."""
        self.left, self.struck = line, False
        before = sys.gettrace()
        # The collector would run other tests' finalizers in here, some of which have lines of ours.
        collects = gc.isenabled()
        gc.disable()
        sys.settrace(self._trace)
        try:
            call()
        finally:
            sys.settrace(before)
            if collects:
                gc.enable()
        return self.struck


class HandlerAtCalls:
    """Raises ``kind`` at the n-th moment at which CPython may run a signal handler, in code of ``files``.

    That is where a function begins, or a call of C has ended; from :meth:`start` to :meth:`stop`.  ``struck``
    says where it was.
    """

    def __init__(self, files, number, kind):
        self.files = files
        self.left = number
        self.kind = kind
        self.struck = ""
        self._resumed = set()

    def start(self):
        sys.setprofile(self._profile)

    def stop(self):
        sys.setprofile(None)

    def _profile(self, scope, event, argument):
        if event not in ("call", "c_return") or scope.f_code.co_filename not in self.files:
            return
        if event == "call":
            # A coroutine that goes on looks for no signals.
            if id(scope) in self._resumed:
                return
            self._resumed.add(id(scope))
        self.left -= 1
        if self.left < 0:
            self.stop()
            what = scope.f_code.co_name if event == "call" else argument.__name__
            self.struck = f"{event} {what} in {scope.f_code.co_name}, line {scope.f_lineno}"
            raise self.kind
