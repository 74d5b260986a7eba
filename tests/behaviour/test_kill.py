"""kill -9 at random moments, with batches in flight, and an immediate reopen.

What was acknowledged is there, every frame is whole, a commit is there wholly or not at all, and
nothing that the dead process had under way arrives after the reopen: each write has a number of
its own, so a late one would show.
"""

from __future__ import annotations

import collections
import os
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from behaviour import child_kill
from behaviour.child_kill import GUIDS, WORKERS, batch, guid
from behaviour.children import TESTS
from behaviour.stamps import blank, sequence_of
from uringblob import FileBlobStore
from uringblob.store.format import CHECKSUM_BITS

#: Times four tests.
ROUNDS = 52
LOCK_SECONDS = 60
PATIENCE = 60


@pytest.fixture
def zygote():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "behaviour.child_kill", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
    zygote = child_kill.Zygote(process, ours)
    yield zygote
    zygote.close()


class Known:
    """What one worker's guids may hold: all that it did in order, up to the last batch begun."""

    def __init__(self, seed, worker):
        self._seed = seed
        self._worker = worker
        self.state = dict.fromkeys(range(GUIDS))

    def after(self, state, sequence):
        """Return the state after one more batch."""
        writes, deletes = batch(self._seed, self._worker, sequence)
        return {**state, **dict.fromkeys(writes, sequence), **dict.fromkeys(deletes)}

    def judge(self, found, first, acknowledged, begun, *, atomic):
        """Tell whether a batch was under way and was found; keep what was found as the state."""
        state = self.state
        for sequence in range(first, (acknowledged or first - 1) + 1):
            state = self.after(state, sequence)
        unfinished = begun is not None and begun != acknowledged
        newer = self.after(state, begun) if unfinished else state
        if atomic:
            assert found in (state, newer), f"{found} is neither {state} nor {newer}"
        else:
            for number, sequence in found.items():
                allowed = {state[number], newer[number]}
                assert sequence in allowed, f"blob {number} is of {sequence}, not of {allowed}"
        self.state = found
        if not unfinished:
            return "nothing"
        return "whole" if found == newer else "absent" if found == state else "a part"


def read_all(store):
    """Return which write each blob is of, having looked at every byte."""
    frames = [(name, blank(store.page_size)) for name in store.list_blobs()]
    assert store.read_blobs(frames) == [None] * len(frames)
    return {name: sequence_of(name, frame) for name, frame in frames}


def slots(store):
    """Return where in the file each blob lies."""
    find = store._core._core.index.find
    return {name: (find(name) >> CHECKSUM_BITS) * store.page_size for name in store.list_blobs()}


def file_contents(path, places, page_size):
    """Return what ``read_all`` should say, read without the store."""
    with open(path, "rb") as file:
        return {
            name: sequence_of(name, os.pread(file.fileno(), page_size, at)) for name, at in places.items()
        }


class Victim:
    """A store, the children that work on it and die, and what must be there then."""

    def __init__(self, zygote, path, options, *, seed, way):
        self._zygote = zygote
        self._path = path
        self._options = options
        self._seed = seed
        self._way = way
        self._known = [Known(seed, worker) for worker in range(WORKERS)]
        self._next = 1
        self.logs = set()
        self.page_size = options["page_size"]

    def round(self, number):
        """Let a child work, kill it, look; return what became of each worker's unfinished batch."""
        dice = random.Random(f"{self._seed}/{number}")
        face = "sync" if number % 2 else "async"
        reports = self._start_and_kill(dice, face, self._way)
        try:
            if dice.random() < 0.1:
                # This one dies while it recovers what the other one left.
                self._start_and_kill(dice, face, "idle").close()
            found = self._look()
            reports.drain()
        finally:
            reports.close()
        return self._judge(found, reports)

    def _start_and_kill(self, dice, face, way):
        job = {
            "path": self._path,
            "options": self._options,
            "page_size": self.page_size,
            "way": way,
            "face": face,
            "seed": self._seed,
            "first": self._next,
        }
        pid, reports = self._zygote.start(job)
        if way == "idle":
            reports.wait(1, dice.uniform(0, 0.03))
        else:
            reports.wait(dice.randrange(1, 40), PATIENCE)
            reports.wait(1 << 30, dice.uniform(0, 0.002))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            reports.drain()  # it says why it ended
            raise
        return reports

    def _look(self):
        shown = self._look_only()
        with FileBlobStore.open(self._path, lock_timeout=LOCK_SECONDS, **self._options) as store:
            found = read_all(store)
            assert shown in (None, found), "a read-only opener showed something else"
            assert read_all(store) == found
            report = store.verify()
            assert report.ok, report
            places = slots(store)
            self.logs.add(store._core._core.superblocks.current.log_id)
            assert file_contents(self._path, places, self.page_size) == found
        assert file_contents(self._path, places, self.page_size) == found
        return found

    def _look_only(self):
        """Return what a read-only opener shows; ``None`` if it says that it left a cached group out."""
        with FileBlobStore.open(
            self._path, read_only=True, lock_timeout=LOCK_SECONDS, **self._options
        ) as store:
            # The dead writer's last requests may still be under way: then it was opened beside that one.
            while store._core._core.file.locks.ask() is not None:
                time.sleep(0.001)
            store.refresh()
            return None if "cache" in str(store.stats().notes) else read_all(store)

    def _judge(self, found, reports):
        first, atomic = self._next, self._way == "commit"
        self._next = max([first - 1, *reports.begun.values()]) + 1
        fates = []
        for worker, known in enumerate(self._known):
            last, begun = reports.acknowledged.get(worker), reports.begun.get(worker)
            state = {number: found.pop(guid(worker, number), None) for number in range(GUIDS)}
            fates.append(known.judge(state, first, last, begun, atomic=atomic))
        assert not found, "blobs that nobody wrote"
        return fates


@pytest.mark.slow
@pytest.mark.one_interpreter
@pytest.mark.parametrize("way", ["commit", "write and flush"])
def test_killed_with_batches_in_flight(zygote, store_path, engine, way, replay, count_row):
    page_size = 16384 if way == "commit" else 65536
    options = {"engine": engine, "page_size": page_size, "buffers": 8}
    victim = Victim(zygote, store_path, options, seed=replay, way=way)
    fates = collections.Counter()
    unfinished = 0
    for number in range(ROUNDS):
        print(f"round {number}")
        here = victim.round(number)
        fates.update(here)
        unfinished += any(fate != "nothing" for fate in here)
    print(f"{engine}, {way}: {unfinished} of {ROUNDS} died with batches under way, {dict(fates)}")
    print(f"logs seen, each the last one compacted: {len(victim.logs)}")
    assert unfinished >= ROUNDS / 2
    count_row(1, kills=ROUNDS)
    count_row(13, **{"openers right after a kill with writes in flight": unfinished})
    assert len(victim.logs) > 1, "no log was ever compacted"
