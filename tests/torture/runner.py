"""Shares the time among the rows' lots, one process a lot and one lot a processor at any time.

A lot's time is its share of what is left, so what a row does not need goes to the others.  Rows that
come to an end by themselves begin first.  A lot that dies of a signal has failed, and so has one that
hangs: it is told to end at its deadline, and killed :data:`HUNG_S` later.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import multiprocessing.connection
import sys
import time
from collections.abc import Sequence

from torture.outcome import Failure, Outcome
from torture.rows import Lot, Row
from torture.work import work

#: Seconds behind its deadline after which a lot counts as hanging.
HUNG_S = 180.0
_TICK_S = 0.25
#: Seconds a lot gets at least: a process has to start, too.
_LOT_S_MIN = 2.0


@dataclasses.dataclass
class Running:
    """A lot under way."""

    outcome: Outcome
    lot: Lot
    process: multiprocessing.process.BaseProcess
    home: multiprocessing.connection.Connection
    began: float
    seconds: float
    at: object = None
    told: bool = False  #: it said how it ended


class Runner:
    """Runs ``rows`` for ``seconds`` in all; :meth:`run` returns an outcome for each row."""

    def __init__(
        self, rows: Sequence[Row], *, seconds: float, seed: int, workers: int, modules: tuple[str, ...] = ()
    ) -> None:
        self.outcomes = [Outcome(row) for row in rows]
        self.seconds = seconds
        self.seed = seed
        self.workers = workers
        self.hung_s = HUNG_S
        self._modules = modules
        self._spawn = multiprocessing.get_context("spawn")
        self._stop = self._spawn.Event()
        self._running: list[Running] = []
        self._waiting: list[tuple[Outcome, int]] = []
        self._began = time.monotonic()
        self._line = ""

    def run(self) -> list[Outcome]:
        """Run to the end; Ctrl-C ends the steps under way and begins no others."""
        for outcome in self.outcomes:
            outcome.not_run = outcome.row.needs()
        able = [outcome for outcome in self.outcomes if not outcome.not_run]
        able.sort(key=lambda o: (isinstance(o.row.release, int), -o.row.share))
        self._waiting = [(outcome, shard) for outcome in able for shard in range(outcome.row.lots)]
        try:
            self._loop()
        except KeyboardInterrupt:
            self._say("stopping: the steps under way come to their end")
            self._stop.set()
            self._waiting.clear()
            self._loop()
        finally:
            for running in self._running:
                running.process.kill()
        return self.outcomes

    def _loop(self) -> None:
        while self._running or self._waiting:
            while self._waiting and len(self._running) < self.workers:
                self._begin(*self._waiting.pop(0))
            ready = multiprocessing.connection.wait([r.home for r in self._running], timeout=_TICK_S)
            for running in list(self._running):
                if running.home in ready:
                    self._hear(running)
                elif time.monotonic() > running.began + running.seconds + self.hung_s:
                    self._kill(running)
            self._progress()

    # --- one lot -------------------------------------------------------------------------

    def _begin(self, outcome: Outcome, shard: int) -> None:
        lots = [(outcome, shard), *self._waiting]
        weight = sum(o.row.share / o.row.lots for o, _ in lots)
        now = time.monotonic()
        end = self._began + self.seconds
        left = self.workers * (end - now) - sum(max(0.0, r.began + r.seconds - now) for r in self._running)
        seconds = max(_LOT_S_MIN, min(end - now, left * outcome.row.share / outcome.row.lots / weight))
        lot = Lot(self.seed, shard, outcome.row.lots)
        home, away = self._spawn.Pipe(duplex=False)
        process = self._spawn.Process(
            target=work, args=(outcome.row.key, self._modules, lot, seconds, away, self._stop)
        )
        process.start()
        away.close()
        outcome.lots_begun += 1
        self._running.append(Running(outcome, lot, process, home, now, seconds))

    def _hear(self, running: Running) -> None:
        try:
            kind, what, running.at = running.home.recv()
        except EOFError:
            running.process.join()
            if not running.told:
                self._fail(
                    running, f"its process ended with {running.process.exitcode} in the middle of a step"
                )
            self._end(running)
            return
        if kind == "counts":
            running.outcome.add(what)
        elif kind == "failed":
            running.told = True
            self._fail(running, *what)
        else:
            running.told = True
            running.outcome.lots_whole += what == "whole"

    def _kill(self, running: Running) -> None:
        running.process.kill()
        running.process.join()
        self._fail(running, f"a step hung: killed {self.hung_s:.0f} s behind its end")
        self._end(running)

    def _end(self, running: Running) -> None:
        self._running.remove(running)
        running.home.close()
        outcome = running.outcome
        outcome.seconds += time.monotonic() - running.began
        others = [r.outcome for r in self._running] + [waiting for waiting, _ in self._waiting]
        if outcome not in others:
            self._say(
                f"row {outcome.row.number:>2} {outcome.row.what}: {outcome.figures()}, {outcome.result}"
            )

    def _fail(self, running: Running, message: str, trace: str = "") -> None:
        row = running.outcome.row
        at = running.at
        seed = at if isinstance(at, int) and at >= self.seed else self.seed
        replay = next(
            (line for line in reversed(message.splitlines()) if line.startswith("replay:")),
            f"replay: make torture ROWS={row.number} SEED={seed}  # {row.run.__name__}, step {at!r}",
        )
        failure = Failure(row, message, trace or message, replay)
        running.outcome.failures.append(failure)
        self._say(str(failure))

    # --- what is seen --------------------------------------------------------------------

    def _say(self, line: str) -> None:
        self._clear()
        print(line, flush=True)

    def _clear(self) -> None:
        if self._line:
            sys.stderr.write("\r\x1b[K")
            self._line = ""

    def _progress(self) -> None:
        if not sys.stderr.isatty():
            return
        left = max(0.0, self._began + self.seconds - time.monotonic())
        parts = []
        for running in self._running:
            outcome = running.outcome
            spent = outcome.seconds + time.monotonic() - running.began
            rate = outcome.done / spent if spent else 0.0
            parts.append(f"row {outcome.row.number}: {outcome.done:,} {outcome.row.unit} ({rate:,.0f}/s)")
        self._clear()
        self._line = f"{left:5.0f} s left  " + "  ".join(parts)
        sys.stderr.write(self._line[:150])
        sys.stderr.flush()
