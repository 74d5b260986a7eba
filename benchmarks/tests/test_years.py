"""The measures of living with a store: snapshots, readers, vacuum and copies are really there."""

from __future__ import annotations

import os

import pytest

from uringblob import FileBlobStore
from uringblob_bench.bench import Bench, Pace
from uringblob_bench.contenders.beside import BesideReaders, BesideSnapshots
from uringblob_bench.contenders.copies import Backup, CpAndSync
from uringblob_bench.contenders.vacuumed import VacuumedStore
from uringblob_bench.load import Load, Verb
from uringblob_bench.measures import years

pytestmark = pytest.mark.one_interpreter
LOADS = (Load(Verb.READ, 2), Load(Verb.COMMIT))


@pytest.mark.parametrize(("kind", "figure"), [(BesideSnapshots, "snapshots"), (BesideReaders, "readers")])
def test_the_company_is_there_until_the_turn_ends(params, workdir, needs_uring, kind, figure):
    contender = kind(params, workdir, 2)
    contender.prepare()
    for sample in contender.turn(LOADS, 0.02):
        assert sample.frames > 0
    stats = contender._stats
    pids = [pid for readers in stats.readers for pid in readers.pids]
    assert (stats.snapshots if figure == "snapshots" else len(pids)) == 2
    assert contender.settings()[figure] == 2
    with FileBlobStore.open(contender.filler.path) as store:
        assert (store.stats().snapshots, store.stats().readers) == (0, ())


def test_a_turn_vacuums_a_store_in_which_every_second_frame_was_deleted(params, workdir, needs_uring):
    contender = VacuumedStore(params, workdir, vacuums=True)
    contender.prepare()
    (path,) = [entry.path for entry in os.scandir(workdir.directory)]
    for _ in range(2):
        for sample in contender.turn(LOADS, 0.3):
            assert sample.frames > 0
            assert sample.extra["vacuum_s"] > 0
        with FileBlobStore.open(path) as store:
            assert len(store) == params.frames, "what was deleted for the turn is there again"


def test_copies_are_whole(params, workdir, needs_uring, monkeypatch):
    kept = []
    monkeypatch.setattr(
        os, "unlink", lambda path, **_: kept.append(path) or os.rename(path, f"{path}-{len(kept)}")
    )
    contenders = [kind(params, workdir) for kind in (Backup, CpAndSync)]
    for contender in contenders:
        contender.prepare()
    (backup,), (cp,) = [contender.turn((), 0) for contender in contenders]
    assert backup.frames == params.live
    assert cp.frames == os.path.getsize(contenders[1].filler.path) // params.page_size
    for number in range(1, 1 + len(kept)):
        if os.path.exists(f"{workdir.path('copy')}-{number}"):
            with FileBlobStore.open(f"{workdir.path('copy')}-{number}", read_only=True) as store:
                assert len(store) == params.live


def test_every_measure_runs_on_a_small_store(params, workdir, needs_uring, monkeypatch):
    monkeypatch.setattr(years, "VACUUM_PAGE", 4096)
    monkeypatch.setattr(years, "COUNTS", (1,))
    monkeypatch.setattr(years, "LOADS", {"commits": Load(Verb.COMMIT)})
    bench = Bench(workdir, params, Pace(rounds=1, seconds=0.02))
    for measure in years.MEASURES:
        for finding in measure.run(bench):
            assert finding.measured is not None, finding
