"""Work on the index that grows with a group, a few guids in each loop iteration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from uringblob import tuning
from uringblob.store.index.slots import SlotTable
from uringblob.store.io.checksum_budget import GUIDS_AT_ONCE, ChecksumBudget

T = TypeVar("T")


async def acquire_changes(budget: ChecksumBudget) -> None:
    """Wait until the next :data:`GUIDS_AT_ONCE` changes may be made."""
    await budget.acquire(GUIDS_AT_ONCE * tuning.CHANGE_COST_BYTES)


async def each_in_turns(budget: ChecksumBudget, step: Callable[[T], object], items: Iterable[T]) -> None:
    """Call ``step`` with each of ``items``."""
    for number, item in enumerate(items):
        if number and number % GUIDS_AT_ONCE == 0:
            await acquire_changes(budget)
        step(item)


async def confirm_in_turns(budget: ChecksumBudget, slots: SlotTable, seq: int) -> None:
    """Pass the fences of all groups up to ``seq``."""
    while slots.confirm(seq, GUIDS_AT_ONCE):
        await acquire_changes(budget)
