"""A door to C in front of the real one, through which a test decides what the kernel answers."""

from __future__ import annotations


class FaultyLib:
    """The real library, except that each ``ub_submit`` first asks the script, and each ``ub_push`` ``pushes``.

    A negative entry is answered as it is; a positive one lets that many operations through;
    when the script is over everything goes through.
    """

    def __init__(self, ring, script=(), waits=(), pushes=()):
        self._lib = ring._lib
        self.script = list(script)
        self.waits = list(waits)
        self.pushes = list(pushes)
        self.batches = []
        ring._lib = ring._queue.lib = ring._in_flight.lib = self

    def __getattr__(self, name):
        return getattr(self._lib, name)

    def ub_submit(self, core, ops, count):
        answer = self.script.pop(0) if self.script else count
        if answer < 0:
            return answer
        count = min(count, answer)
        self.batches.append([ops[i].opcode for i in range(count)])
        return self._lib.ub_submit(core, ops, count)

    def ub_push(self, core):
        answer = self.pushes.pop(0) if self.pushes else core.staged
        if answer < 0:
            return answer
        return self._push_some(core, answer) if answer < core.staged else self._lib.ub_push(core)

    def _push_some(self, core, count):
        """The kernel takes the first ``count`` only: C has fewer staged meanwhile."""
        staged, core.staged = core.staged, count
        taken = self._lib.ub_push(core)
        core.staged += staged - count
        return taken

    def ub_wait(self, core):
        answer = self.waits.pop(0) if self.waits else 0
        return answer if answer < 0 else self._lib.ub_wait(core)
