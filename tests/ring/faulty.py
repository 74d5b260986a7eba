"""A door to C in front of the real one, through which a test decides what the kernel answers."""

from __future__ import annotations


class FaultyLib:
    """The real library, except that each ``ub_submit`` first asks the script.

    A negative entry is answered as it is; a positive one lets that many operations through;
    when the script is over everything goes through.
    """

    def __init__(self, ring, script=(), waits=()):
        self._lib = ring._lib
        self.script = list(script)
        self.waits = list(waits)
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

    def ub_wait(self, core):
        answer = self.waits.pop(0) if self.waits else 0
        return answer if answer < 0 else self._lib.ub_wait(core)
