"""The calls made to a store, what it acknowledged, and what it may therefore contain afterwards.

A *change* gives one guid one new content (``None``: deleted) and belongs to a *call*; a call has a
beginning and, once it ended, an end, both counted in events.  Two rules judge what a store shows
after a crash:

* **Nothing acknowledged is lost.**  A guid holds the content of a change that was requested, but of
  none that ended before another change of that guid began which is known to be durable.
* **A commit is atomic.**  If one guid shows what a commit gave it, no other guid of that commit
  shows what is older than the commit.

A change is known to be durable when its commit returned, when a flush that began after it
returned has returned, or when a read returned what a commit wrote.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

#: Ends after everything: a call that has not ended, or failed with its outcome unknown.
NEVER = 1 << 62


@dataclasses.dataclass(eq=False)
class Call:
    """One call: its name, when it began and ended, and whether all of it is one unit.

    ``refused``: the store reported that nothing of it was applied; a call that raised
    without that report stays without an end: its changes may be there or not.
    """

    number: int
    name: str
    atomic: bool
    began: int
    ended: int = NEVER
    durable: bool = False
    refused: bool = False
    changes: dict[bytes, bytes | None] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        end = "" if self.ended == NEVER else self.ended
        flags = ("D" if self.durable else "") + ("R" if self.refused else "")
        named = ", ".join(f"{g[-1]}={'-' if c is None else c[:4].hex()}" for g, c in self.changes.items())
        return f"#{self.number} {self.name}({named}) [{self.began}..{end}] {flags}"


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What was known at one instant: for each call, whether it had begun, ended, was durable."""

    calls: tuple[tuple[Call, int, bool, bool], ...]


class HistoryError(AssertionError):
    """A store lost, mixed or invented something."""


class History:
    """Records calls; judges contents.  ``contents`` are anything hashable, whole frames say."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.now = 0

    def begin(self, name: str, changes: Mapping[bytes, bytes | None], *, atomic: bool = False) -> Call:
        """Record the beginning of a call that gives each guid its content (``None``: delete it)."""
        call = Call(len(self.calls), name, atomic, self._tick(), changes=dict(changes))
        self.calls.append(call)
        return call

    def end(self, call: Call, *, durable: bool = False, refused: bool = False) -> None:
        """Record the return of a call, or an error that reports that nothing was applied (``refused``)."""
        self._tick()
        if refused:
            call.refused = True
            return
        call.ended = self.now
        if durable:
            call.durable = True

    def recovered(self, found: Mapping[bytes, bytes]) -> None:
        """Record what a store shows once opened: ``found`` is durable, and what it lacks never comes back."""
        guids = {guid for call in self.calls for guid in call.changes} | set(found)
        for call in self.calls:
            if call.ended == NEVER:
                call.ended = self._tick()
        opening = self.begin("recovered", {guid: found.get(guid) for guid in guids})
        self.end(opening, durable=True)

    def flushed(self, began: int) -> None:
        """Record the return of a flush that began at ``began``: all that had returned by then is durable."""
        self._tick()
        for call in self.calls:
            if call.ended < began and not call.refused:
                call.durable = True

    def seen(self, guid: bytes, content: bytes | None, began: int) -> None:
        """Check a read that began at ``began`` and has just returned ``content``.

        :raises HistoryError: it is older than the read allows, or was never written.
        """
        now = self._tick()
        candidates = [c for c in self.calls if guid in c.changes and not c.refused and c.began < now]
        overruled = max((c.began for c in candidates if c.ended < began), default=-1)
        fitting = [c for c in candidates if c.changes[guid] == content and c.ended > overruled]
        if not fitting and not (content is None and overruled < 0):
            raise HistoryError(f"a read of {guid.hex()} returned {_short(content)}: stale, or never written")
        for call in fitting:
            if call.atomic and len(fitting) == 1 and content is not None:
                call.durable = True

    def _tick(self) -> int:
        self.now += 1
        return self.now

    # --- judging -------------------------------------------------------------------------

    def knowledge(self) -> Knowledge:
        """Return what is known now; it stays as it is while the history goes on."""
        return Knowledge(tuple((c, c.ended, c.durable, c.refused) for c in self.calls))

    @staticmethod
    def judge(known: Knowledge, found: Mapping[bytes, bytes]) -> None:
        """Compare what a store shows after a crash with what may be there.

        :raises HistoryError: it lost, mixed or invented something.
        """
        by_guid: dict[bytes, list[tuple[Call, int, bool, bool]]] = {}
        for entry in known.calls:
            for guid in entry[0].changes:
                by_guid.setdefault(guid, []).append(entry)
        for guid in found:
            if guid not in by_guid:
                raise HistoryError(f"blob {guid.hex()} was never written")
        shown: dict[bytes, list[Call | None]] = {}
        for guid, entries in by_guid.items():
            shown[guid] = _explain(guid, entries, found.get(guid))
        for call, _, _, _ in known.calls:
            if call.atomic and len(call.changes) > 1:
                _judge_commit(call, shown)


def _explain(
    guid: bytes, entries: Iterable[tuple[Call, int, bool, bool]], content: bytes | None
) -> list[Call | None]:
    """Return the changes that may have given ``guid`` this content (``None``: the beginning)."""
    floor = max((call.began for call, _, durable, _ in entries if durable), default=-1)
    fitting: list[Call | None] = [
        call
        for call, ended, _, refused in entries
        if call.changes[guid] == content and ended > floor and not refused
    ]
    if content is None and floor < 0:
        fitting.append(None)
    if not fitting:
        origin = [call for call, _, _, _ in entries if call.changes[guid] == content]
        what = f"what {origin[-1]} gave it" if origin else f"{_short(content)}, which was never written"
        newest = [str(call) for call, _, durable, _ in entries if durable]
        raise HistoryError(f"blob {guid.hex()} shows {what}; durable were {newest or 'none'}")
    return fitting


def _judge_commit(call: Call, shown: Mapping[bytes, list[Call | None]]) -> None:
    certain = [guid for guid in call.changes if shown[guid] == [call]]
    older = [
        guid
        for guid in call.changes
        if all(source is None or source.ended < call.began for source in shown[guid])
    ]
    if certain and older:
        raise HistoryError(f"half of {call} is there: {certain[0].hex()} shows it, {older[0].hex()} is older")


def _short(content: bytes | None) -> str:
    return "no blob" if content is None else f"{content[:8].hex()}.. ({len(content)} bytes)"
