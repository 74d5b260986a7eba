"""Lost, misdirected and stale writes, swapped slots, an old copy of a log segment (row 9 of the faults).

A *lost* write leaves what the block held before; a *misdirected* one leaves that, and lands on another
block; a *stale* block is any of the versions it once held; *swapped* blocks hold each other's bytes.
Every pair of blocks of a small store is tried.

What is promised: never a wrong byte.  A store that was closed shows each blob as it was, or as
``BlobCorrupt``, or does not open and says why.  One that was cut off may show the state before its
last commit, as after a torn write; where its log's end is an older copy, blobs may show what they held
then, which nothing on this disk can tell from a store that ended earlier.
"""

from __future__ import annotations

import itertools

import pytest

from sim.lives import PAGE, small_log
from sim.test_bits import VICTIMS
from sim.victim import Victim, see
from uringblob.errors import StoreCorrupt

pytestmark = pytest.mark.one_interpreter


@pytest.fixture(scope="module", params=VICTIMS, ids=str)
def victim(request):
    compactions, closed = request.param
    with small_log(segment_bytes=4 * PAGE):
        yield Victim(compactions=compactions, closed=closed)


def check(victim, blocks: dict[int, bytes], *, old_end=False) -> str:
    """Open the store with these blocks in place of its own; return which of the outcomes it was."""
    try:
        found, bad, _ = see(victim.with_blocks(blocks))
    except StoreCorrupt:
        log = {offset // PAGE for offset in victim.log}
        assert set(blocks) & (log | {0, 1}), "frames were damaged, and the store does not open"
        return "store corrupt"
    if shows(victim.now, victim.frames, blocks, found, bad):
        return "blob corrupt" if bad else "nothing"
    assert not victim.closed, "a store that was closed shows something else"
    if shows(victim.before, victim.frames_before, blocks, found, bad):
        return "left out"
    assert old_end, "neither the last state nor the one before"
    for name, content in found.items():
        assert content in victim.contents[name], f"blob {name.hex()} shows what it never held"
    return "older"


def shows(state, frames, blocks, found, bad) -> bool:
    """Whether that is ``state``, but for blobs that are corrupt because their blocks were hit."""
    hit = {name for slot, name in frames.items() if slot in blocks}
    return bad <= hit and found == {name: content for name, content in state.items() if name not in bad}


def used_blocks(victim) -> list[int]:
    """Superblocks, log, live frames, and two of those that are in no use."""
    used = {0, 1, *(offset // PAGE for offset in victim.log), *victim.frames}
    free = [block for block in range(victim.image.size // PAGE) if block not in used]
    return sorted(used | set(free[:1] + free[-1:]))


class Tally(dict):
    """Counts outcomes, and says where it was when something else came out."""

    def try_all(self, victim, cases) -> int:
        for what, blocks, *old_end in cases:
            try:
                outcome = check(victim, blocks, old_end=any(old_end))
            except Exception as error:
                raise AssertionError(f"{error!r}\nreplay: {victim}: {what}") from error
            self[outcome] = self.get(outcome, 0) + 1
        return sum(self.values())


def newest(victim, block: int) -> bytes:
    return victim.image.read(block * PAGE, PAGE)


def misdirected_writes(victim):
    """The last write to one block landed on another; what was written there later stands."""
    for meant, hit in itertools.permutations(used_blocks(victim), 2):
        versions, last = victim.versions[meant], victim.last_write
        if len(versions) > 1 and last[meant] > last.get(hit, -1):
            yield f"{meant} went to {hit}", {meant: versions[-2], hit: newest(victim, meant)}


def swapped_slots(victim):
    for a, b in itertools.combinations(used_blocks(victim), 2):
        yield f"{a} and {b} swapped", {a: newest(victim, b), b: newest(victim, a)}


def lost_and_stale_writes(victim):
    """Every block as it was at any time before, the last write being lost among them; and pairs of such."""
    used = used_blocks(victim)
    older = {block: list(dict.fromkeys(victim.versions[block][:-1])) for block in used}
    for block, versions in older.items():
        for index, content in enumerate(versions):
            yield f"{block} is as at first + {index}", {block: content}, True
    for a, b in itertools.combinations([block for block in used if older[block]], 2):
        # Both superblocks from the past are a store from the past.
        if (a, b) != (0, 1):
            yield f"{a} and {b} lost their last writes", {a: older[a][-1], b: older[b][-1]}, True


def old_log_segments(victim):
    """A whole segment as it was before the last so many writes to each of its blocks."""
    for segment in victim.segments:
        longest = max(len(victim.versions[slot]) for slot in segment)
        for age in range(1, longest):
            copy = {
                slot: victim.versions[slot][: -age or None] or victim.versions[slot][:1] for slot in segment
            }
            yield f"segment at {segment.start}, {age} writes old", {s: v[-1] for s, v in copy.items()}, True


def copies_of_the_store_kept_as_frames(victim):
    """Blobs hold the blocks of a copy of this very file, which went on by itself; one is written elsewhere.

    Same store, same log, and some of its groups come next here.  Where such a block belongs in the copy
    nothing tells it from this store's own, so that place is left out.
    """
    twin = victim.twin()
    blocks = {block: twin.read(block * PAGE, PAGE) for block in range(twin.size // PAGE)}
    ours = [block for block, raw in blocks.items() if raw[:4] == b"ublk" or block < 2]
    end = victim.last_group // PAGE
    for block, hit in itertools.product(ours, {*used_blocks(victim), end, end + 1, end + 2}):
        if block != hit:
            yield f"the copy's {block} went to {hit}", {hit: blocks[block]}


#: What may go astray, and the outcomes that must be among the results.
CASES = {
    misdirected_writes: ("store corrupt", "blob corrupt"),
    swapped_slots: ("store corrupt", "blob corrupt"),
    lost_and_stale_writes: ("store corrupt", "blob corrupt", "nothing"),
    old_log_segments: ("store corrupt",),
    copies_of_the_store_kept_as_frames: ("store corrupt", "blob corrupt", "nothing"),
}


@pytest.mark.parametrize("cases", CASES, ids=lambda cases: cases.__name__)
def test_what_goes_astray(victim, cases, count_row):
    tally = Tally()
    count_row(9, **{cases.__name__.replace("_", " "): tally.try_all(victim, cases(victim))})
    assert set(tally) >= set(CASES[cases]), tally
