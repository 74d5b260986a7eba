"""One sentence of the contract and the code that checks a store against it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable

from uringblob.testing.conformance.subject import Subject

Ask = Callable[[Subject], Awaitable[None]]

#: What a check may need of a store, and why it is not run on a store without it.
NEEDS = {
    "async": "only an asynchronous store has tasks",
    "sync": "only a synchronous store has threads",
    "file": "only a file store has a file and an engine",
    "reopen": "no reopen= was given, so the store cannot be asked what survives",
    "own_commit": "the inherited commit is not atomic, and says so",
    "own_close": "the inherited close cannot refuse later calls of the five methods",
    "own_needs_flush": "the inherited needs_flush is always true",
    "own_snapshot": "the inherited snapshot reads through, and says so where a frame was replaced",
    "own_stat_blob": "the inherited stat_blob knows of no metadata",
    "own_stats": "the inherited stats count nothing",
}


@dataclasses.dataclass(frozen=True)
class Check:
    """A named check; ``sentence`` is the contract's, ``needs`` are keys of ``NEEDS``."""

    name: str
    sentence: str
    needs: tuple[str, ...]
    ask: Ask = dataclasses.field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.name


def check(sentence: str, *needs: str) -> Callable[[Ask], Check]:
    """Make a function a :class:`Check` of ``sentence``."""
    assert set(needs) <= set(NEEDS)

    def decorate(ask: Ask) -> Check:
        return Check(ask.__name__, sentence, needs, ask)

    return decorate
