"""A bad last group against a bad group in the middle, every byte (row 10 of the faults).

The last group of a store that was cut off is left out and reported: it looks like a torn write.  In
the middle, or in a store that was closed, the same damage is reported by name and never shortens
the log silently.
"""

from __future__ import annotations

import pytest

from sim.lives import PAGE, guid, small_log
from sim.settings import BYTES_APART
from sim.test_bits import PLACE, VICTIMS
from sim.victim import Victim, see
from uringblob.errors import StoreCorrupt
from uringblob.store.format import SECTOR_SIZE, BlockType

pytestmark = pytest.mark.one_interpreter

#: Where a sector's header has it.
SEQUENCE_NUMBER = range(8, 16)


@pytest.fixture(scope="module", params=VICTIMS, ids=str)
def victim(request):
    compactions, closed = request.param
    with small_log(segment_bytes=8 * PAGE):
        yield Victim(compactions=compactions, closed=closed)


def every_byte(victim) -> range:
    """Every byte of two victims, and every fourth of two more, which differ in how they ended only."""
    return range(0, PAGE, 1 if (victim.compactions, victim.closed) in {(0, True), (1, False)} else 4)


def other_bytes(raw: bytes, at: int):
    """Ways in which the bytes from ``at`` on may be bad: one is another; at every eighth the rest is blank, or rubbish."""
    yield raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :]
    if at % 8:
        return
    yield raw[:at] + bytes(PAGE - at)
    yield raw[:at] + b"\xa5" * (PAGE - at)


def outcome(victim, block: int, content: bytes):
    """Return what an opener says: ``StoreCorrupt``'s message, or what it found and its notes."""
    try:
        return see(victim.with_blocks({block: content}))
    except StoreCorrupt as error:
        return str(error)


def check_the_last(victim, seen, what: str, *, blank=False, later=False) -> None:
    if victim.closed:
        assert isinstance(seen, str), f"{what}: a sealed group went without a word"
        assert PLACE.search(seen), what
        return
    if isinstance(seen, str):
        # Its sequence number became a later one, which says that a group in the middle is missing.
        assert later, f"{what}: {seen}"
        return
    assert (seen.found, seen.bad) == (victim.before, set()), what
    # Where nothing is left of it, there is nothing to tell of.
    assert blank or "is left out" in str(seen.notes), f"{what}: left out without a word"


def last_groups_block(victim, places) -> int:
    """Returns how many bad blocks were tried."""
    block = victim.last_group // PAGE
    raw = victim.image.read(victim.last_group, PAGE)
    count = 0
    for at in places:
        for content in other_bytes(raw, at):
            if content == raw:
                continue  # the block's own end is blank
            check_the_last(
                victim,
                outcome(victim, block, content),
                f"byte {at}",
                blank=not any(content),
                later=at % SECTOR_SIZE in SEQUENCE_NUMBER,
            )
            count += 1
    return count


def group_in_the_middle(victim, places) -> int:
    """Every group before the last one is proved by those behind it."""
    groups = [place for place in victim.groups() if victim.image.read(place, PAGE)[4] == BlockType.GROUP]
    offset = groups[groups.index(victim.last_group) - 1]
    raw = victim.image.read(offset, PAGE)
    count = 0
    for at in places:
        for content in other_bytes(raw, at):
            if content == raw:
                continue
            seen = outcome(victim, offset // PAGE, content)
            assert isinstance(seen, str), f"byte {at}: the log was cut short without a word: {seen.notes}"
            assert PLACE.search(seen), f"byte {at}: {seen}"
            count += 1
    return count


def last_groups_frames(victim, places) -> int:
    """Cut off: the group never happened.  Closed: that blob is ``BlobCorrupt``, alone."""
    count = 0
    for slot, name in victim.frames.items():
        if name not in (guid(0), guid(4)):
            continue
        raw = victim.image.read(slot * PAGE, PAGE)
        for at in places[:: 1 if name == guid(4) else 16]:
            seen = see(victim.with_blocks({slot: raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]}))
            if victim.closed:
                others = {g: f for g, f in victim.now.items() if g != name}
                assert (seen.found, seen.bad) == (others, {name}), f"byte {at}"
            else:
                check_the_last(victim, seen, f"byte {at}")
            count += 1
    return count


CHECKS = [last_groups_block, group_in_the_middle, last_groups_frames]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_byte(victim, check, count_row):
    count_row(10, **{check.__name__.replace("_", " "): check(victim, every_byte(victim)[::BYTES_APART])})
