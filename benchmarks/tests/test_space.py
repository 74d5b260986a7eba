"""How long the file is, and what pieces cost: the measures' own arithmetic, on small stores."""

from __future__ import annotations

import dataclasses
import itertools
import os

import pytest

from uringblob import FileBlobStore, tuning
from uringblob_bench import drive, meter
from uringblob_bench.bench import Bench, Pace
from uringblob_bench.contenders.fragmented import BATCH, FragmentedStore, ScatteredRing, commits_of
from uringblob_bench.contenders.overwritten import Overwritten
from uringblob_bench.finding import Bound
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures import MEASURES
from uringblob_bench.measures.space import file_against_live, fixed_bytes
from uringblob_bench.sweeps import SWEEPS
from uringblob_bench.sweeps.overwrites import SPACE, TIMES

pytestmark = pytest.mark.one_interpreter

TURN = (Load(Verb.COMMIT),)
BATCHES = (Load(Verb.COMMIT, 1, BATCH),)
FRAMES = 700


def test_a_turn_overwrites_as_often_as_is_missing_and_says_how_long_the_file_is(params, workdir, needs_uring):
    contender = Overwritten(params, workdir, 100)
    contender.prepare()
    for times, least in ((1, 100), (3, 300), (3, 300)):
        contender.target = times
        (sample,) = contender.turn(TURN, 0)
        assert least <= sample.extra["overwritten"] < least + BATCH
    assert sample.frames == 0, "nothing was missing"
    (path,) = [entry.path for entry in os.scandir(workdir.directory)]
    assert sample.extra["file_bytes"] == os.path.getsize(path)
    with FileBlobStore.open(path) as store:
        stats = store.stats()
    assert stats.blobs == 100
    assert sample.extra["amplification"] == stats.amplification
    assert sample.extra["log_bytes"] == stats.log_bytes


def test_the_sweep_and_its_measure_share_one_run(params, workdir, needs_uring):
    bench = Bench(workdir, params, Pace(rounds=1, seconds=0.01))
    findings = file_against_live(bench)
    turns = {name: list(case.order) for name, case in bench.cases.items()}
    SWEEPS["space"].run(bench)
    assert turns == {name: case.order for name, case in bench.cases.items()}
    assert [case.at for case in bench.cases.values()] == list(TIMES)
    assert {case.sweep for case in bench.cases.values()} == {SPACE}
    for finding in findings:
        assert (finding.bound, finding.target) == (Bound.AT_MOST, 1.25)
        assert finding.reached, finding
    assert (fixed_bytes(4096), fixed_bytes(65536), fixed_bytes(1 << 20)) == (4 << 20, 4 << 20, 8 << 20)


def test_a_fragmented_store_takes_each_batch_in_pieces_and_is_as_it_was_after_a_turn(
    params, workdir, needs_uring, monkeypatch
):
    monkeypatch.setattr(tuning, "SPARE_BYTES", 0)  # a store this small would grow by them
    store = FragmentedStore(params, workdir, frames=FRAMES)
    store.prepare()
    (path,) = [entry.path for entry in os.scandir(workdir.directory)]
    for _ in range(2):
        with FileBlobStore.open(path) as opened:
            before = opened.stats()
        assert before.blobs == FRAMES * 3 // 7
        (sample,) = store.turn(BATCHES, 5)
        assert sample.frames == commits_of(FRAMES) * BATCH, "its turn ends with the pieces"
        assert sample.extra["writes a commit"] > 2
        assert sample.extra["file_bytes"] == 0, "there was room in the pieces"
    with FileBlobStore.open(path) as opened:
        assert opened.stats().blobs == before.blobs


def test_the_ring_makes_the_same_writes(params, workdir, needs_uring):
    ring = ScatteredRing(params, workdir, frames=FRAMES)
    ring.prepare()
    (sample,) = ring.turn(BATCHES, 0.02)
    assert sample.frames % BATCH == 0 < sample.frames
    assert ring.settings()["piece"] == 4


def test_pieces_are_measured_against_the_ring(params, workdir, needs_uring, monkeypatch):
    """By clocks that go on with each look: no call is too long for its turn, and none costs nothing."""
    clock, cpu = itertools.count(), itertools.count()
    for module in (drive, meter):
        monkeypatch.setattr(module, "now", lambda: next(clock) / 1000)
    monkeypatch.setattr(meter, "cpu_seconds", lambda: (next(cpu) / 1000, 0.0))
    params = dataclasses.replace(params, file_bytes=FRAMES * params.page_size)
    found = MEASURES[17].run(Bench(workdir, params, Pace(rounds=1, seconds=0.02)))
    assert [finding.bound for finding in found] == [Bound.AT_MOST, Bound.NONE]
    assert all(finding.measured for finding in found), found
