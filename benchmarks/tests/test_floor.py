"""The floor does the I/O of a store and checksums what a store checksums, with tasks and without."""

from __future__ import annotations

import dataclasses

import pytest

from uringblob.ring import Opcode, Ring
from uringblob_bench.contenders import bare_file, callbacks, floor, no_device
from uringblob_bench.contenders.base import CannotRun
from uringblob_bench.contenders.callbacks import BareCallbacks
from uringblob_bench.contenders.floor import BareAsyncio
from uringblob_bench.contenders.no_device import BareNops, StoreNops
from uringblob_bench.contenders.store import AsyncStore
from uringblob_bench.load import Load, Verb

pytestmark = pytest.mark.one_interpreter
SECONDS = 0.02
FLOORS = [BareAsyncio, BareCallbacks]
LOADS = [
    Load(Verb.READ),
    Load(Verb.READ, 4),
    Load(Verb.READ, 2, 4),
    Load(Verb.WRITE, 2, 4),
    Load(Verb.BATCH),
    Load(Verb.BATCH, 1, 8),
    Load(Verb.COMMIT),
    Load(Verb.COMMIT, 8),
    Load(Verb.COMMIT, 1, 8),
]
FILE_WRITES = {Opcode.WRITE_FIXED, Opcode.WRITE}


@pytest.fixture
def traced(monkeypatch):
    """What rings hand over, in order: pairs of opcode and size."""
    seen = []
    real = Ring.__init__

    def init(ring, *given, **options):
        real(ring, *given, **options)
        ring.trace = lambda operations: seen.extend((each.op.opcode, each.op.length) for each in operations)

    monkeypatch.setattr(Ring, "__init__", init)
    return seen


@pytest.fixture
def checksums(monkeypatch):
    """Count the checksums that are made."""
    made = []
    for module in (bare_file, callbacks, floor):
        monkeypatch.setattr(module, "frame_checksum", made.append)
    return made


@pytest.mark.parametrize("load", LOADS, ids=str)
@pytest.mark.parametrize("kind", FLOORS)
def test_the_floor_does_all_of_the_work(params, workdir, needs_uring, kind, load):
    contender = kind(params, workdir)
    contender.prepare()
    (sample,) = contender.turn([load], SECONDS)
    assert sample.frames > 0
    assert sample.frames % load.frames == 0
    assert sample.extra["ring_enters"] > 0
    assert contender.settings()["checksums"] is True


@pytest.mark.parametrize("kind", FLOORS)
def test_loads_run_side_by_side(params, workdir, needs_uring, kind):
    contender = kind(params, workdir)
    contender.prepare()
    samples = contender.turn([Load(Verb.TICK), Load(Verb.READ, 2), Load(Verb.COMMIT, 1, 4)], 0.05)
    assert all(sample.frames for sample in samples)


@pytest.mark.parametrize("kind", FLOORS)
def test_a_commit_is_a_frame_a_block_and_then_a_sync(params, workdir, needs_uring, kind, traced):
    contender = kind(dataclasses.replace(params, page_size=8192), workdir)
    contender.prepare()
    contender.turn([Load(Verb.COMMIT)], SECONDS)
    once = [(Opcode.WRITE_FIXED, 8192), (Opcode.WRITE_FIXED, 4096), (Opcode.FSYNC, 0)]
    whole = len(traced) // 3
    assert whole > 1
    assert traced[: 3 * whole] == once * whole


@pytest.mark.parametrize("kind", FLOORS)
def test_commits_that_come_together_share_a_sync(params, workdir, needs_uring, kind, traced):
    contender = kind(dataclasses.replace(params, page_size=8192), workdir)
    contender.prepare()
    contender.turn([Load(Verb.COMMIT, 8)], 0.05)
    frames, syncs = traced.count((Opcode.WRITE_FIXED, 8192)), traced.count((Opcode.FSYNC, 0))
    assert traced.count((Opcode.WRITE_FIXED, 4096)) - syncs in {0, 1}
    assert frames > 4 * syncs


@pytest.mark.parametrize("kind", FLOORS)
@pytest.mark.parametrize("load", [Load(Verb.READ, 2), Load(Verb.READ, 1, 2), Load(Verb.COMMIT, 2)], ids=str)
def test_every_frame_is_checksummed(params, workdir, needs_uring, kind, load, checksums):
    contender = kind(params, workdir)
    contender.prepare()
    (sample,) = contender.turn([load], SECONDS)
    assert len(checksums) >= sample.frames
    checksums.clear()
    kind(dataclasses.replace(params, verify=False), workdir).turn([load], SECONDS)
    assert bool(checksums) is (load.verb is Verb.COMMIT)


@pytest.mark.parametrize("kind", FLOORS)
@pytest.mark.parametrize("verb", [Verb.READ, Verb.WRITE, Verb.BATCH, Verb.COMMIT])
def test_an_answer_that_is_not_whole_ends_the_turn(params, workdir, needs_uring, kind, verb, monkeypatch):
    contender = kind(params, workdir)
    contender.prepare()
    monkeypatch.setattr(Ring, "read_fixed", lambda ring, *_, **__: ring.nop())
    monkeypatch.setattr(Ring, "write_fixed", lambda ring, *_, **__: ring.nop())
    with pytest.raises(OSError, match="answered 0 instead of 4096"):
        contender.turn([Load(verb, 2)], SECONDS)


@pytest.mark.parametrize("kind", FLOORS)
@pytest.mark.parametrize("verb", [Verb.BATCH, Verb.COMMIT])
def test_a_sync_that_fails_ends_the_turn(params, workdir, needs_uring, kind, verb, monkeypatch):
    contender = kind(params, workdir)
    contender.prepare()
    real = Ring.fsync
    monkeypatch.setattr(Ring, "fsync", lambda ring, _file, **options: real(ring, 9, **options))
    with pytest.raises(OSError):
        contender.turn([Load(verb, 2)], SECONDS)


# ---- no device ----------------------------------------------------------------------------------


@pytest.fixture
def nops(needs_uring):
    try:
        no_device.check_nops()
    except CannotRun as error:
        pytest.skip(f"n/a: {error}")


@pytest.mark.parametrize("kind", [BareNops, StoreNops])
@pytest.mark.parametrize("verify", [True, False])
def test_reads_without_a_device_read_into_each_frame_once(params, workdir, nops, kind, verify, traced):
    contender = kind(dataclasses.replace(params, verify=verify), workdir)
    contender.prepare()
    traced.clear()
    (sample,) = contender.turn([Load(Verb.READ, 4)], SECONDS)
    assert sample.frames > 8
    at_open = kind is StoreNops
    assert traced.count((Opcode.READ_FIXED, params.page_size)) == 4 + at_open
    assert traced.count((Opcode.NOP, params.page_size)) >= sample.frames - 4


def test_the_store_without_a_device_is_not_the_one_that_others_change(params, workdir, nops):
    for kind, load in ((AsyncStore, Load(Verb.COMMIT)), (StoreNops, Load(Verb.READ, 4))):
        contender = kind(params, workdir)
        contender.prepare()
        (sample,) = contender.turn([load], SECONDS)
        assert sample.frames > 0


def test_a_store_that_reads_in_another_way_has_no_figure(params, workdir, nops):
    contender = StoreNops(dataclasses.replace(params, registered=False), workdir)
    contender.prepare()
    with pytest.raises(CannotRun, match="so there is a device"):
        contender.turn([Load(Verb.READ, 4)], SECONDS)


def test_a_kernel_whose_nops_carry_no_result_is_named(params, workdir, needs_uring, monkeypatch):
    monkeypatch.setattr(Ring, "wait", lambda _ring, _completion: 0)
    for kind in (BareNops, StoreNops):
        with pytest.raises(CannotRun, match=r"carries no result: Linux 6\.10"):
            kind(params, workdir).prepare()
