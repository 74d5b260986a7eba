"""A flipped bit anywhere: what a store of five blobs says of it (row 8 of the faults).

* in a frame: ``BlobCorrupt`` for that blob, all others stay readable;
* in one superblock: nothing;
* in the log of a store that was closed: ``StoreCorrupt``, with offset and sequence number;
* in the log of a store that was not: the same, but in its last group it may look like a torn write;
  then that group is left out, as a whole, and the store says so;
* in what the store does not use: nothing.

Every bit of superblocks and log is flipped and given to the store's own decoders.  What an opener
makes of a damaged block depends on their answer alone, so a store is opened for every *different*
answer (a few hundred a block, the sequence numbers' bits above all), and for every 613th bit
whatever the answer, to see that this is so.
"""

from __future__ import annotations

import random
import re

import pytest

from sim.lives import PAGE, guid, small_log
from sim.settings import FLIPS_IN_FRAMES
from sim.victim import Seen, Victim
from uringblob.errors import StoreCorrupt
from uringblob.store import format as store_format
from uringblob.store.file import judge_superblocks
from uringblob.store.format import BLANK_BLOCK, HEADER_SIZE

pytestmark = pytest.mark.one_interpreter

#: Bits between two for which a store is opened in any case: coprime to the sizes of sectors, cells and fields.
STEP = 613

#: What a message about a damaged log says, besides what to do.
PLACE = re.compile(r"offset \d+, (after )?group \d+")

VICTIMS = [(0, True), (0, False), (1, True), (1, False)]


@pytest.fixture(scope="module", params=VICTIMS, ids=str)
def victim(request):
    compactions, closed = request.param
    with small_log(segment_bytes=4 * PAGE):
        yield Victim(compactions=compactions, closed=closed)


def bits(offset: int, size: int, step: int = 1) -> range:
    return range(offset * 8, (offset + size) * 8, step)


def check_superblocks(victim, step=1) -> int:
    """Either superblock may be damaged: the newest acknowledged commit is there."""
    header = victim.image.read(0, HEADER_SIZE)
    answers: dict[str, Seen] = {}
    flips = bits(0, HEADER_SIZE, step)
    for bit in flips:
        flipped = bytearray(header)
        flipped[bit // 8] ^= 1 << bit % 8
        answer = repr(judge_superblocks(bytes(flipped), "simulated"))
        if answer not in answers or bit % STEP == 0:
            answers[answer] = victim.open_flipped(bit)
        found, bad, _ = answers[answer]
        assert (found, bad) == (victim.now, set()), f"bit {bit}"
    return len(flips)


def check_frames(victim, step=STEP * 2, first=0) -> int:
    count = 0
    for slot, name in victim.frames.items():
        for bit in bits(slot * PAGE, PAGE)[first::step]:
            check_frame(victim, name, bit)
            count += 1
    return count


def check_frame(victim, name, bit) -> None:
    others = {g: f for g, f in victim.now.items() if g != name}
    found, bad, notes = victim.open_flipped(bit)
    if not victim.closed and notes:
        # The last group of a store that was not closed: it cannot be told from a torn write.
        assert name in (guid(0), guid(4))
        assert found == victim.before, f"bit {bit}"
    else:
        assert (found, bad) == (others, {name}), f"bit {bit}"


def answer_of(raw: bytes, store_id: bytes, log_id: int, offset: int) -> object:
    """Everything that the log's reader learns of a block's bytes."""
    block = store_format.decode_block(store_id, offset, raw)
    return block, tuple(store_format.find_stale_sectors(raw, offset, log_id)), raw == BLANK_BLOCK


def check_log(victim, step=1) -> int:
    """Each outcome is one of three: nothing, the last group left out and said so, or ``StoreCorrupt``."""
    superblock = next(s for s in judge_superblocks(victim.image.read(0, HEADER_SIZE), "simulated") if s)
    outcomes = {"nothing": 0, "left out": 0, "detected": 0}
    count = 0
    for offset in victim.log:
        raw = victim.image.read(offset, PAGE)
        answers: dict[object, str] = {}
        for bit in bits(0, PAGE, step):
            flipped = bytearray(raw)
            flipped[bit // 8] ^= 1 << bit % 8
            answer = answer_of(bytes(flipped), superblock.store_id, superblock.log_id, offset)
            if answer not in answers or bit % STEP == 0:
                outcome = outcome_of(victim, offset * 8 + bit)
                assert answers.setdefault(answer, outcome) == outcome, (
                    "an opener looks at more than answer_of"
                )
            outcomes[answers[answer]] += 1
            count += 1
    # Blocks in use: header, snapshot, carry, and the groups behind it; and blank ones behind those.
    assert outcomes["detected"] > 0
    assert outcomes["nothing"] > 0
    assert bool(outcomes["left out"]) is not victim.closed
    return count


def outcome_of(victim, bit: int) -> str:
    try:
        found, bad, notes = victim.open_flipped(bit)
    except StoreCorrupt as error:
        message = str(error)
    else:
        return outcome_of_opened(victim, bit, found, bad, notes)
    assert PLACE.search(message), f"bit {bit}: neither offset nor sequence number: {message}"
    return "detected"


def outcome_of_opened(victim, bit: int, found, bad, notes) -> str:
    assert not bad, f"bit {bit}"
    if found == victim.now:
        return "nothing"
    assert found == victim.before, f"bit {bit}: neither the last state nor the one before"
    assert notes, f"bit {bit}: the last group was left out without a word"
    assert not victim.closed, f"bit {bit}: a sealed group was left out"
    return "left out"


def test_everything_else(victim):
    """Free slots and the reserve may hold anything."""
    used = {*victim.log, 0, PAGE, *(slot * PAGE for slot in victim.frames)}
    # What the last group replaced is needed when that group is left out, and only then.
    for offset in range(0, victim.image.size, PAGE):
        if offset not in used:
            found, bad, _ = victim.open_flipped(offset * 8 + 1234)
            assert (found, bad) == (victim.now, set()), f"offset {offset}"


def step_of(victim) -> int:
    """Every bit of two victims, and every seventh of two more, which differ in how they ended only."""
    return 1 if (victim.compactions, victim.closed) in {(0, True), (1, False)} else 7


def test_superblocks(victim, count_row):
    count_row(8, **{"bits of superblocks": check_superblocks(victim, step_of(victim))})


def test_frames(victim, count_row):
    """Bits drawn from all of a frame's, each drawn once."""
    rng = random.Random(str(victim))
    wanted = FLIPS_IN_FRAMES // len(VICTIMS) // len(victim.frames)
    for slot, name in victim.frames.items():
        for bit in rng.sample(bits(slot * PAGE, PAGE), wanted):
            check_frame(victim, name, bit)
    count_row(8, **{"bits in frames": wanted * len(victim.frames)})


@pytest.mark.slow
def test_log(victim, count_row):
    count_row(8, **{"bits of the log": check_log(victim, step_of(victim))})
