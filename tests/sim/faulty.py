"""Requests that fail: which, how, and what the contract says of the store afterwards."""

from __future__ import annotations

import contextlib
import errno
import random

from sim.judging import recover
from sim.lives import PAGE, Life, Moment, forget, read_all, small_log, used_image
from uringblob.errors import BlobStoreError, BlobStoreIOError
from uringblob.testing.sim.disk import Fault, SimDisk
from uringblob.testing.sim.history import History
from uringblob.testing.sim.loop import SimLoop
from uringblob.testing.sim.store import new_image, open_sim_store

KINDS = ("read", "write", "sync", "grow", "cut", "punch", "allocate")


class Failing:
    """The ``index``-th request of these kinds fails, or every one from there on.

    ``struck`` lists the kinds of those that did.
    """

    def __init__(self, index: int, fault: Fault, *, forever: bool = False, kinds=KINDS):
        self.index = index
        self.fault = fault
        self.forever = forever
        self.kinds = kinds
        self._seen = -1
        self.struck: list[str] = []
        self.poisoned = lambda: False
        self.linked_syncs = lambda: 0
        self._linked = 0
        self.syncs_when_poisoned = 0

    def __call__(self, index: int, kind: str) -> Fault | None:
        linked, self._linked = self._linked, self.linked_syncs()
        # One that was linked to a write was asked for together with it, and earlier.
        if kind == "sync" and self._linked == linked and self.poisoned():
            self.syncs_when_poisoned += 1
        if kind not in self.kinds:
            return None
        self._seen += 1
        if self._seen == self.index or (self.forever and self._seen > self.index):
            self.struck.append(kind)
            return self.fault
        return None

    def __repr__(self) -> str:
        return f"Failing({self.index}, {self.fault}, forever={self.forever})"


#: Name, fault.  A short count moves part of what was asked.
FAULTS = {
    **{
        name: Fault(getattr(errno, name))
        for name in ("EIO", "ENOSPC", "EDQUOT", "EFBIG", "EINTR", "ETIMEDOUT", "EAGAIN", "ECANCELED")
    },
    "zero bytes": Fault(moved=lambda size: 0),
    "short by 512": Fault(moved=lambda size: size - 512),
    "short by 4096": Fault(moved=lambda size: size - 4096 if size > 4096 else size // 8 * 7),
    "all but one": Fault(moved=lambda size: size - 1),
    "one byte": Fault(moved=lambda size: 1),
}


class Compound:
    """Several faults in one life, each at a request of its own."""

    def __init__(self, faults: list[Failing]) -> None:
        self.faults = faults

    def __call__(self, index: int, kind: str) -> Fault | None:
        hits = [fault(index, kind) for fault in self.faults]
        return next((hit for hit in hits if hit is not None), None)

    @property
    def struck(self) -> list[str]:
        """The kinds of requests that failed."""
        return [kind for fault in self.faults for kind in fault.struck]


def life_with_faults(seed: int, **options) -> int:
    """Live with two or three faults chosen by ``seed``; returns how many requests failed."""
    rng = random.Random(seed)
    failing = Compound(
        [
            Failing(rng.randrange(60), FAULTS[rng.choice(sorted(FAULTS))], forever=rng.random() < 0.2)
            for _ in range(rng.choice((2, 2, 3)))
        ]
    )
    with small_log(seed=seed, segment_bytes=4 * PAGE):
        life = Life(used_image(24), rng, faults=failing, images_per_step=0, **options)
        try:
            life.run()
            if "sync" in failing.struck and life.store._core.file_io.poison_cause is None:
                # A fault that moves part of the bytes is none for a sync.
                assert not life.errors or any(fault.fault.errno == 0 for fault in failing.faults)
            known = life.history.knowledge()
            for cut in range(3):
                recover(life.disk.crash(random.Random(seed + cut)), known)
            life.disk.restart()
            recover(life.disk.live, known, deep=True)
        except Exception as error:
            raise AssertionError(
                f"{error!r}\nreplay: life_with_faults seed={seed} {failing.faults}"
            ) from error
    return len(failing.struck)


def life_with_fault(
    seed: int, name: str, index: int, *, forever: bool, used=False, kinds=KINDS, kind=Life, **options
) -> Life | None:
    """Live the life of ``seed`` with one fault, judge all it leaves; ``None`` if it has fewer requests."""
    failing = Failing(index, FAULTS[name], forever=forever, kinds=kinds)
    rng = random.Random(seed)
    with small_log(seed=seed, segment_bytes=4 * PAGE):
        life = kind(
            used_image(24) if used else new_image(PAGE), rng, faults=failing, images_per_step=0, **options
        )
        failing.poisoned = lambda: life.store._core.file_io.poison_cause is not None
        failing.linked_syncs = lambda: life.store._core.file_io.engine.counters.linked_syncs
        try:
            life.run()
            if not failing.struck:
                return None
            poisoned = life.store._core.file_io.poison_cause is not None
            _check_outcome(name, failing, life, poisoned=poisoned)
            known = life.history.knowledge()
            # The machine goes on: what the dead process wrote is there, lost pages are not.
            life.disk.restart()
            found = recover(life.disk.live, known, deep=True)
            if life.last is not None and not poisoned and not life.errors:
                assert found == life.last, "a life without an error ended with something else"
        except Exception as error:
            raise AssertionError(
                f"{error!r}\nreplay: seed={seed} fault={name!r} index={index} forever={forever} {options}"
            ) from error
    return life


NO_ROOM = ("ENOSPC", "EDQUOT", "EFBIG")


def _check_outcome(name, failing, life, *, poisoned: bool) -> None:
    """What API.md says of the store after these faults."""
    kinds = set(failing.struck)
    # The system tells of lost pages once: a later success would be a lie, so nobody asks.
    assert not failing.syncs_when_poisoned, "a poisoned store asked for an fsync"
    if "sync" in kinds and name in {n for n, f in FAULTS.items() if f.errno}:
        assert poisoned, f"a failed fsync ({name}) and the store goes on"
        return
    if failing.forever:
        return
    if kinds in ({"read"}, {"grow"}):
        assert not poisoned, f"a failed {kinds} poisoned the store"
    if name.startswith(("short", "all but", "one", "EINTR", "EAGAIN")):
        assert not life.errors, f"{name} once is no error: {life.errors}"
    if name in NO_ROOM and "superblock" not in str(life.store._core.file_io.poison_cause):
        assert not poisoned, f"{name} once poisoned the store: {life.errors}"


def open_with_fault(moment: Moment, name: str, index: int, *, forever: bool) -> bool:
    """Open the store while one request fails; then open it undisturbed, and judge it.

    Returns false if opening takes fewer requests.
    """
    failing = Failing(index, FAULTS[name], forever=forever)
    loop = SimLoop()
    disk = SimDisk(index, image=moment.image.copy(), faults=failing)

    async def run() -> None:
        try:
            store = await open_sim_store(disk, loop)
        except BlobStoreIOError:
            return
        stores.append(store)
        History.judge(moment.known, await read_all(store))
        with contextlib.suppress(BlobStoreError):
            await store.aclose()

    stores = []
    try:
        with contextlib.suppress(BlobStoreIOError):
            loop.run(run())
        for store in stores:
            forget(store)
        disk.restart()
        recover(disk.live, moment.known)
        recover(disk.crash(random.Random(index)), moment.known)
    except Exception as error:
        raise AssertionError(f"{error!r}\nreplay: fault={name!r} index={index} forever={forever}") from error
    return bool(failing.struck)
