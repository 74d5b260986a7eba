"""The hunts for planted bugs: ordinary runs of the rig, under the order monitor.

A hunt knows nothing of the bug.  It goes through seeds until the rig raises or the monitor has a
remark, and says which it was, the seed, and how many disk images had been judged by then.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import re
import tempfile
import warnings
from typing import NamedTuple

from conftest import why_no_uring
from faults.test_busy_kernel import weather
from monitor import install
from sim.cancelling import cancelling_life
from sim.flat import pushing_ends_requests, stuttering
from sim.lost_pages import reopened_on_its_cache
from sim.races import race
from sim.real_trace import judged
from sim.rig import PAGE, life_with_fault, options_of, small_log, torture
from sim.snapshots import SnapshotLife
from sim.test_bits import Victim, check_frames, check_log, check_superblocks
from sim.test_misplaced import CASES, Tally
from sim.vacuums import VacuumLife, vacuum_options

#: Seeds to go through before a bug counts as not found.
PATIENCE = 150

#: Seconds for a life on a real engine.
PATIENCE_S = 30


class Catch(NamedTuple):
    """Who found it, with which seed, after how many images, and what was said."""

    by: str
    seed: int
    images: int
    words: str

    def __str__(self) -> str:
        return f"found by the {self.by}: seed={self.seed} images={self.images}: {self.words[:110]}"


def power_cuts(seed: int) -> int:
    return torture(seed, **options_of(seed))["disk images"]


def cancellations(seed: int) -> int:
    cancelling_life(seed)
    return 0


def flipped_bits(seed: int) -> int:
    with small_log(segment_bytes=8 * PAGE, seed=seed):
        victim = Victim(compactions=seed % 2, closed=False)
        step = 997
        for check in (check_superblocks, check_frames, check_log):
            check(victim, step)
    return (victim.image.size * 8) // step


def small_commits(seed: int) -> int:
    """Power cuts where nearly every group is written by callbacks."""
    return torture(seed, count=2, **{**options_of(seed), "only_commits": True})["disk images"]


def snapshots(seed: int) -> int:
    """Snapshots are looked through while others change the store."""
    options = {**options_of(seed), "kind": SnapshotLife, "calls": 40}
    return torture(seed, count=1, deep=0, again=0, rot=0, looks=10**9, **options)["disk images"]


def vacuums(seed: int) -> int:
    """Vacuums beside everything else."""
    options = {**vacuum_options(seed), "kind": VacuumLife, "images_per_step": 1}
    return torture(seed, count=1, deep=0, again=0, rot=0, looks=10**9, **options)["disk images"]


def answers_given_twice(seed: int) -> int:
    """As a reaper gives them that a signal handler has interrupted."""
    with stuttering():
        return small_commits(seed)


def answers_inside_a_push(seed: int) -> int:
    """Requests end inside the call that submits them: inside the step of the task that made it."""
    with pushing_ends_requests():
        return small_commits(seed)


def races(seed: int) -> int:
    """Commits on condition that race each other."""
    return race(seed)["disk images"]


def misplaced_blocks(seed: int) -> int:
    """Without the monitor: it knows the format by itself, and an opener's judgement is the question."""
    with small_log(segment_bytes=4 * PAGE, seed=seed), install.switched_off():
        victim = Victim(compactions=seed % 2, closed=seed % 4 < 2)
        return sum(Tally().try_all(victim, cases(victim)) for cases in CASES)


def lost_pages(seed: int) -> int:
    return next(index for index in itertools.count() if not reopened_on_its_cache(seed, index))


def busy_kernel(seed: int) -> int:
    """A store on the real ring, whose kernel interrupts waits and takes only a part of what it is given."""
    failure = ""
    with tempfile.TemporaryDirectory() as directory, warnings.catch_warnings():
        # A planted bug leaves a store that cannot be closed; it is collected here, not in a later test.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            in_time(weather(os.path.join(directory, "store"), seed, forced=10))
        except Exception as error:
            failure = repr(error)
        gc.collect()
    assert not failure, failure
    return 0


def in_time(coroutine) -> None:
    """Run ``coroutine``; not as ``asyncio.run``, which waits for what does not end."""
    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(coroutine)
        loop.run_until_complete(asyncio.wait([task], timeout=PATIENCE_S))
        assert task.done(), f"a call does not end in {PATIENCE_S} s"
        task.result()
    finally:
        loop.close()


def real_trace(engine: str):
    def hunt(seed: int) -> int:
        with tempfile.TemporaryDirectory() as directory:
            images, _ = asyncio.run(judged(os.path.join(directory, "store"), engine, seed))
        return images

    return hunt


def faults(name: str):
    name, *among = name.split(" among ")
    only_commits = among == ["small commits"]

    def hunt(seed: int) -> int:
        for index in itertools.count():
            life = life_with_fault(seed, name, index, forever=False, calls=14, only_commits=only_commits)
            if life is None or install.pending():
                return index
        return 0

    return hunt


#: What each hunt may be asked for; any other name is that of a fault of the rig.
HUNTS = {
    "power cuts": power_cuts,
    "flipped bits": flipped_bits,
    "cancellations": cancellations,
    "small commits": small_commits,
    "snapshots": snapshots,
    "vacuums": vacuums,
    "answers given twice": answers_given_twice,
    "answers inside a push": answers_inside_a_push,
    "misplaced blocks": misplaced_blocks,
    "races": races,
    "lost pages": lost_pages,
    "a busy kernel": busy_kernel,
    "the trace of io_uring": real_trace("io_uring"),
    "the trace of pread": real_trace("pread"),
}
_ON_THE_RING = {"a busy kernel", "the trace of io_uring"}


def why_not(kind: str) -> str:
    """Return why this hunt cannot be made here, or ''."""
    return why_no_uring() if kind in _ON_THE_RING else ""


def hunt_for(kind: str, *, first: int = 0, patience: int = PATIENCE) -> Catch | None:
    """Hunt until something is found; ``None`` if nothing is, in ``patience`` seeds."""
    hunt = HUNTS.get(kind) or faults(kind)
    images = 0
    install.take()
    for seed in range(first, first + patience):
        try:
            images += hunt(seed)
        except Exception as error:
            install.take()
            if isinstance(error.__cause__ or error, (TypeError, AttributeError, NameError)):
                raise  # the bug was planted badly
            words = str(error).splitlines()
            found = re.search(r"image=(-?\d+)", words[-1]) if words else None
            more = max(0, int(found[1])) if found else 0
            return Catch("rig", seed, images + more, words[0] if words else repr(error))
        if lines := install.take():
            return Catch("order monitor", seed, images, lines[0])
    return None
