"""The judge: opens what a power cut left, reads everything, compares it with what was acknowledged."""

from __future__ import annotations

import random

from monitor.blocks import BLOCK, parse_superblock
from monitor.opening import Reader
from sim.lives import Moment, forget, frame, guid, lent, meta_of, read_all
from uringblob.store.file import judge_superblocks
from uringblob.store.format import HEADER_SIZE
from uringblob.testing.sim.disk import SimDisk
from uringblob.testing.sim.history import History, Knowledge
from uringblob.testing.sim.image import Image
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import open_sim_store


def recover(image: Image, known: Knowledge | None, *, rng=None, deep=False, steps=None) -> dict[bytes, bytes]:
    """Open the store in ``image``, read everything, judge it.

    ``deep``: also verify it, go on with it, close it and open it once more.
    ``steps``: a list that gets the crash images of this recovery.
    """
    found, _ = contents(image, rng=rng, deep=deep, steps=steps)
    if known is not None:
        History.judge(known, found)
    return found


def contents(image: Image, *, rng=None, deep=False, steps=None) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """Return what a writable opener of ``image`` finds, and what it says was left out; see :func:`recover`."""
    loop = SimLoop()
    disk = SimDisk(image=image.copy())
    if steps is not None:
        disk.on_step = lambda _why: steps.append(disk.crash(rng))

    async def run():
        # Nothing is asked for side by side here, so that no order can matter but the one of asking.
        store = await open_sim_store(disk, loop, rng=rng, instant=rng is None and not deep)
        stores.append(store)
        disk.on_step = lambda _why: None
        found, notes = await read_all(store), tuple(store._core.notes)
        if deep:
            after = await _go_on(store, found)
            stores.append(again := await open_sim_store(disk, loop))
            assert await read_all(again) == after, "what was there after recovery is not there after a close"
            report = await again.verify()
            assert report.ok, report
        return found, notes

    stores = []
    try:
        result = loop.run(run())
    finally:
        for store in stores:
            forget(store)
    assert not loop.complaints, loop.complaints
    return result


async def _go_on(store, found) -> dict[bytes, bytes]:
    report = await store.verify()
    assert report.ok, report
    news = {guid(1): frame(1 << 40), guid(200): frame(1 << 41)}
    await store.commit(lent(news), [g for g in list(found)[:1] if g not in news])
    assert await read_all(store) == {
        **{g: f for g, f in found.items() if g not in list(found)[:1] or g in news},
        **news,
    }
    await store.write_blob(guid(201), frame(1 << 42), meta_of(frame(1 << 42)))
    await store.flush()
    after = await read_all(store)
    await store.aclose()
    return after


def look(image: Image, writers: tuple[dict[bytes, bytes], tuple[str, ...]]) -> None:
    """Open the store in ``image`` read-only: no byte changes, and it agrees with ``writers``.

    ``writers`` is what :func:`contents` finds.  Where reads show the medium, a read-only opener finds
    and says the same.  Through a cache it leaves the last group out if nothing proves it, and says so.
    """
    assert read_only_view(image) == writers, "a read-only opener and a writable one disagree"
    found, notes = read_only_view(image, direct_io=False)
    settled = without_the_unproved_group(image)
    if settled is None:
        assert (found, notes) == writers, "through a cache, what is proved is left out"
    else:
        assert found == settled, "through a cache, a read-only opener shows what nothing proves"
        assert "cache" in str(notes), "a group is left out without a word"


def read_only_view(
    image: Image, *, direct_io: bool = True, disk: SimDisk | None = None
) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    """Return what a read-only opener of ``image`` sees, and what it says was left out.

    ``disk``: open it on that one, and believe what its cache has kept.
    """
    loop = SimLoop()
    cache_kept = disk is not None
    disk = SimDisk(image=image.copy()) if disk is None else disk
    faults, disk.faults = disk.faults, _no_change

    async def run():
        store = await open_sim_store(disk, loop, read_only=True, direct_io=direct_io, cache_kept=cache_kept)
        try:
            return await read_all(store), store.stats().notes
        finally:
            await store.aclose()

    found, notes = loop.run(run())
    disk.faults = faults
    assert disk.live == image, "a read-only opener changed the file"
    return found, notes


def without_the_unproved_group(image: Image) -> dict[bytes, bytes] | None:
    """Return what the log of ``image`` says without its last group, or ``None`` if that group is proved.

    By the order monitor's parser, which shares nothing with the store's.
    """
    supers = [parse_superblock(image.read(at, BLOCK), at) for at in (0, BLOCK)]
    newest = max((known for known in supers if known is not None), key=lambda known: known.revision)
    page = newest.page_size
    found = Reader(newest.store_id, page, [(0, image.read(0, image.size))]).play(newest.log_id, newest.head)
    floor = max(found.base_seq, newest.floor if found.older is None else 0)
    # A header that was being linked proves nothing: that goes on beside a group.
    if found.seq <= floor or not found.undo or found.dirty - {found.chain.start(-1)}:
        return None
    slots = {**found.entries, **found.undo}
    return {name: image.read(slot * page, page) for name, slot in slots.items() if slot}


def _no_change(_index: int, kind: str) -> None:
    assert kind == "read", f"a read-only opener asked for a {kind}"


def rotten(image: Image, rng: random.Random) -> Image | None:
    """Return ``image`` with one bit of one superblock flipped, if both were good."""
    header = image.read(0, HEADER_SIZE)
    if any(superblock is None for superblock in judge_superblocks(header, "simulated")):
        return None
    flipped = image.copy()
    flipped.flip(rng.randrange(HEADER_SIZE * 8))
    return flipped


class Judge:
    """Judges images; opens each *different* image once, however often it turns up.

    Every ``looks``-th different image is also opened read-only (0: none).

    What recovery finds in an image depends on the image alone, so an image that comes again with
    other knowledge is judged by what was found in it; the same image with the same knowledge
    is not looked at again, and not counted.  ``opened``, ``judged`` and ``looked`` are counted apart.
    """

    def __init__(self, *, looks: int = 0) -> None:
        self._looks = looks
        self.opened = 0
        self.judged = 0
        self.looked = 0
        self._found: dict[object, tuple[dict[bytes, bytes], tuple[str, ...]]] = {}
        self._seen: set[tuple[object, Knowledge]] = set()

    def look(self, image: Image, known: Knowledge) -> tuple[str, ...]:
        """Judge ``image``; return what its opener says was left out.

        :raises AssertionError: something was lost, mixed or invented.
        """
        key = image.size, frozenset(image.blocks.items())
        if key not in self._found:
            self._found[key] = contents(image)
            if self._looks and self.opened % self._looks == 0:
                look(image, self._found[key])
                self.looked += 1
            self.opened += 1
        found, notes = self._found[key]
        if (key, known) not in self._seen:
            History.judge(known, found)
            self._seen.add((key, known))
            self.judged += 1
        return notes


def relapse(moment: Moment, rng: random.Random, judge: Judge) -> tuple[int, int]:
    """Power is cut again at every step of the recovery of ``moment``, and at every step of that one.

    Returns how many images the first and the second recovery left, all judged.
    """
    first: list[Image] = []
    recover(moment.image, moment.known, rng=rng, steps=first)
    twice = 0
    for image in first:
        second: list[Image] = []
        recover(image, moment.known, rng=rng, steps=second)
        for last in second:
            judge.look(last, moment.known)
        twice += len(second)
    return len(first), twice
