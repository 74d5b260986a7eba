"""Every contender does every kind of work, and what it says of itself is there.

Peers that are not installed skip, with their reason; where the extra `bench-peers` is, none does.
"""

from __future__ import annotations

import dataclasses
import json

import pytest

from uringblob import FileBlobStore
from uringblob_bench.contenders import os_calls
from uringblob_bench.contenders.base import CannotRun
from uringblob_bench.contenders.catalogue import every_peer
from uringblob_bench.contenders.fio import Fio, fio_version, sample_of
from uringblob_bench.contenders.os_calls import OsCalls
from uringblob_bench.contenders.ring import BareRing
from uringblob_bench.contenders.ring_sync import STRATEGIES
from uringblob_bench.contenders.store import AsyncStore, StoreFiller, SyncStore, guid_of
from uringblob_bench.contenders.thread_pool import ThreadPool
from uringblob_bench.contenders.tier import TierHits
from uringblob_bench.load import Load, Verb

pytestmark = pytest.mark.one_interpreter
SECONDS = 0.02
WORK = {
    "read": Load(Verb.READ, 4),
    "write": Load(Verb.WRITE, 2, 4),
    "batch": Load(Verb.BATCH, 1, 4),
    "commit": Load(Verb.COMMIT, 4),
}
PEER_NAMES = [
    "thread pool", "caio", "caio (SQPOLL)", "aiofiles", "obstore", "py-lmdb", "rocksdict", "sqlite3",
]  # fmt: skip


def prepared(contender):
    try:
        contender.prepare()
    except CannotRun as error:
        pytest.skip(f"n/a: {error}")
    return contender


def check(sample, load, params):
    assert sample.frames > 0
    assert sample.frames % load.frames == 0
    assert sample.seconds > 0
    assert sample.page_size == params.page_size
    assert 0 < sample.latency.p50_s <= sample.latency.p99_s <= sample.latency.max_s


def test_every_peer_of_the_suite_is_tested(params, workdir):
    assert [peer.name for peer in every_peer(params, workdir)] == PEER_NAMES


#: Its threads and their descriptors are the process's.
OBSTORE = pytest.param(
    "obstore", marks=pytest.mark.leaks(reason="tokio's runtime lives as long as the process")
)
UVLOOP = pytest.param({"loop": "uvloop"}, marks=pytest.mark.leaks(reason="libuv keeps one pipe for signals"))


@pytest.mark.parametrize("name", [OBSTORE if name == "obstore" else name for name in PEER_NAMES])
def test_each_peer_does_all_of_the_work(params, workdir, name):
    peer = prepared(next(peer for peer in every_peer(params, workdir) if peer.name == name))
    for load in WORK.values():
        (sample,) = peer.turn([load], SECONDS)
        check(sample, load, params)
    assert peer.durability
    assert peer.settings()["durability"] == peer.durability
    json.dumps(peer.settings())


@pytest.mark.parametrize("load", [*WORK.values(), Load(Verb.READ, 1, 4)], ids=str)
@pytest.mark.parametrize("face", [AsyncStore, SyncStore])
def test_the_store_does_all_of_the_work_on_either_face(params, workdir, face, load, engine):
    contender = prepared(face(params, workdir, engine))
    (sample,) = contender.turn([load], SECONDS)
    check(sample, load, params)
    assert contender.settings()["engine"] == engine


def test_a_tier_reads_what_it_has_locally(params, workdir, needs_uring):
    contender = prepared(TierHits(params, workdir))
    (sample,) = contender.turn([WORK["read"]], SECONDS)
    check(sample, WORK["read"], params)


def test_the_store_under_test_has_free_written_slots_for_a_whole_turn(params, workdir, engine):
    filler = StoreFiller(params, workdir, engine)
    filler.prepare()
    with FileBlobStore.open(filler.path) as store:
        stats = store.stats()
        assert stats.blobs == params.live == 24
        assert stats.slots_free >= params.live + stats.slots_live // 4
        frame = bytearray(params.page_size)
        store.read_blob(guid_of(params.live - 1), frame)
        assert any(frame)


@pytest.mark.parametrize(
    "change",
    [{"registered": False}, {"registered": False, "huge": False}, {"huge": False}, {"verify": False},
     UVLOOP, {"one_core": True}, {"wakeup": "eventfd"}],
)  # fmt: skip
def test_the_store_follows_each_setting(params, workdir, change, needs_uring):
    changed = dataclasses.replace(params, **change)
    contender = prepared(AsyncStore(changed, workdir))
    (sample,) = contender.turn([WORK["read"]], SECONDS)
    check(sample, WORK["read"], changed)
    settings = contender.settings()
    assert (settings["buffers_registered"] > 0) is changed.registered
    assert settings["checksums"] is changed.verify


@pytest.mark.parametrize(
    "change", [{}, {"registered": False}, {"huge": False}, {"wakeup": "eventfd"}, UVLOOP]
)
def test_the_bare_ring_follows_each_setting(params, workdir, change, needs_uring):
    changed = dataclasses.replace(params, **change)
    ring = prepared(BareRing(changed, workdir))
    for load in (WORK["read"], WORK["write"], WORK["batch"]):
        (sample,) = ring.turn([load], SECONDS)
        check(sample, load, changed)
        assert sample.extra["ring_enters"] > 0


def test_an_eventfd_wakes_a_loop_that_has_other_readers(params, workdir, needs_uring):
    ring = prepared(BareRing(dataclasses.replace(params, wakeup="eventfd"), workdir))
    ticks, reads = ring.turn([Load(Verb.TICK), WORK["read"]], SECONDS)
    check(reads, WORK["read"], params)
    assert ticks.frames > 0


@pytest.mark.parametrize("sync", STRATEGIES)
@pytest.mark.parametrize("frames", [1, 8])
def test_every_way_to_make_a_batch_durable(params, workdir, sync, frames, needs_uring):
    ring = prepared(BareRing(dataclasses.replace(params, sync=sync), workdir))
    load = Load(Verb.BATCH, 1, frames)
    (sample,) = ring.turn([load], SECONDS)
    check(sample, load, params)
    assert ring.durability


def test_several_loads_run_side_by_side_with_a_ticker(params, workdir, engine):
    loads = [Load(Verb.TICK), Load(Verb.SLEEP), Load(Verb.READ, 2), Load(Verb.COMMIT, 1, 4)]
    samples = prepared(AsyncStore(params, workdir, engine)).turn(loads, 0.1)
    for sample, load in zip(samples[2:], loads[2:], strict=True):
        check(sample, load, params)
    assert all(sample.frames > 0 for sample in samples[:2])


def test_plain_calls_read_the_very_file_of_the_store(params, workdir):
    calls = prepared(OsCalls(params, workdir, on_store=True))
    (sample,) = calls.turn([WORK["read"]], SECONDS)
    check(sample, WORK["read"], params)
    assert calls.settings()["file"].endswith(".blobs")
    with pytest.raises(ValueError, match="only read"):
        calls.turn([WORK["write"]], SECONDS)


def test_plain_calls_that_look_at_what_they_read(params, workdir, monkeypatch):
    seen = []
    monkeypatch.setattr(os_calls, "frame_checksum", seen.append)
    (sample,) = prepared(OsCalls(params, workdir, on_store=True, checksummed=True)).turn(
        [WORK["read"]], SECONDS
    )
    check(sample, WORK["read"], params)
    assert len(seen) >= sample.frames


def test_plain_calls_write_and_commit(params, workdir):
    calls = prepared(OsCalls(params, workdir))
    for load in (WORK["write"], WORK["commit"]):
        (sample,) = calls.turn([load], SECONDS)
        check(sample, load, params)


def test_a_peer_that_is_not_installed_says_so(params, workdir, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    obstore = next(peer for peer in every_peer(params, workdir) if peer.name == "obstore")
    with pytest.raises(CannotRun, match="obstore is not installed"):
        obstore.prepare()


def test_peers_that_are_not_given_o_direct_say_that_their_cache_is_emptied(params, workdir):
    for peer in every_peer(params, workdir):
        if not isinstance(peer, ThreadPool) and peer.cold([WORK["read"]]):
            assert not peer.cold([WORK["batch"]]), peer.name


# --- fio -------------------------------------------------------------------------------------


def test_fio_serves_reads_writes_batches_and_a_mixed_load(params, workdir):
    if not fio_version():
        pytest.skip("n/a: fio is not installed")
    fio = prepared(Fio(params, workdir))
    for work in ("read", "write", "batch"):
        (sample,) = fio.turn([WORK[work]], 0.05)
        assert sample.frames > 0
        assert sample.latency.p50_s > 0
        assert sample.extra["error"] == 0
    reader, writer = fio.turn([Load(Verb.READ), Load(Verb.BATCH, 1, 4)], 0.05)
    assert (reader.extra["job"], writer.extra["job"]) == ("reader", "writer")
    assert fio.settings()["job"] == "mixed"


def test_fio_that_fails_says_why(params, workdir):
    if not fio_version():
        pytest.skip("n/a: fio is not installed")
    fio = prepared(Fio(dataclasses.replace(params, page_size=4095), workdir))
    with pytest.raises(CannotRun, match="fio ended with"):
        fio.turn([WORK["read"]], 0.05)


def test_fio_has_nothing_like_a_commit(params, workdir):
    with pytest.raises(CannotRun, match="commit"):
        Fio(params, workdir).turn([WORK["commit"]], 0.05)


def test_fios_own_figures_become_a_sample():
    side = {
        "total_ios": 100,
        "runtime": 2000,
        "lat_ns": {"mean": 3e6, "max": 9e6, "percentile": {"50.000000": 2e6, "99.000000": 8e6}},
    }
    job = {
        "jobname": "x",
        "error": 0,
        "read": {"total_ios": 0},
        "write": side,
        "usr_cpu": 10.0,
        "sys_cpu": 20.0,
    }
    sample = sample_of(job, 4096)
    assert (sample.frames_per_s, sample.bytes_per_s) == (50, 50 * 4096)
    assert (sample.latency.p50_s, sample.latency.p99_s, sample.latency.max_s) == (0.002, 0.008, 0.009)
    assert (sample.cpu_user_s, sample.cpu_system_s) == pytest.approx((0.2, 0.4))
    assert sample.cpu_per_frame_s == pytest.approx(0.006)
