"""The Prometheus adapter: what its page shows is what was done."""

from __future__ import annotations

import importlib
import os
import sys

import pytest

prometheus_client = pytest.importorskip("prometheus_client", reason="the extra [metrics] is not installed")

from uringblob import (  # noqa: E402 - needs the line above
    BlobCorrupt,
    BlobGuid,
    BlobNotFound,
    FileBlobStore,
    MemoryBlobStore,
    StoreCorrupt,
    StoreStats,
    VerifyReport,
    WriterFenced,
)
from uringblob.metrics import (  # noqa: E402
    BEYOND_COUNTERS,
    COUNTERS,
    PrometheusObserver,
    StoreCollector,
)
from uringblob.remote import RemoteBlobStore, RemoteStats  # noqa: E402
from uringblob.testing import SimBucket  # noqa: E402
from uringblob.tiered import TieredBlobStore, TierStats  # noqa: E402


@pytest.fixture
def registry():
    return prometheus_client.CollectorRegistry()


def test_calls_and_bytes_are_counted(store_path, registry):
    with FileBlobStore.open(store_path, page_size=4096, observer=PrometheusObserver(registry)) as store:
        store.commit([(bytes(16), bytes(4096)), (b"1" * 16, bytes(4096))])
        for _ in range(3):
            store.read_blob(bytes(16), bytearray(4096))
        with pytest.raises(BlobNotFound):
            store.read_blob(b"2" * 16, bytearray(4096))

    def value(name, **labels):
        return registry.get_sample_value(name, labels)

    assert value("uringblob_operation_seconds_count", operation="commit", outcome="ok") == 1
    assert value("uringblob_operation_bytes_total", operation="commit") == 8192
    assert value("uringblob_operation_seconds_count", operation="read_blob", outcome="ok") == 3
    assert value("uringblob_operation_bytes_total", operation="read_blob") == 3 * 4096
    assert value("uringblob_operation_seconds_count", operation="read_blob", outcome="BlobNotFound") == 1
    assert value("uringblob_operation_seconds_count", operation="close", outcome="ok") == 1


def test_every_figure_of_stats_is_shown(store_path, registry):
    with FileBlobStore.open(store_path, page_size=4096, engine="pread") as store:
        store.commit([(bytes(16), bytes(4096))])
        registry.register(StoreCollector(store, "main"))
        page = prometheus_client.generate_latest(registry).decode()
    assert 'uringblob_blobs{store="main"} 1.0' in page
    assert 'uringblob_commits_total{store="main"} 1.0' in page
    assert 'uringblob_info{buffers_reason="the pread engine registers no buffers",engine="pread"' in page
    for field in StoreStats.__dataclass_fields__.values():
        if field.type in ("int", "bool"):
            assert f"uringblob_{field.name}" in page
    assert f'uringblob_amplification_ratio{{store="main"}} {store.stats().amplification}' in page


def test_readers_in_other_processes_are_shown(store_path, registry):
    with FileBlobStore.open(store_path, page_size=4096) as store:
        registry.register(StoreCollector(store, "main"))
        value = registry.get_sample_value
        assert value("uringblob_readers", {"store": "main"}) == 0
        store.commit([(bytes(16), bytes(4096))])
        with FileBlobStore.open(store_path, read_only=True):
            for _ in range(3):
                store.commit([(bytes(16), bytes(4096))])
            assert value("uringblob_readers", {"store": "main"}) == 1
            assert value("uringblob_kept_bytes", {"store": "main"}) == 2 * 4096


def test_tiers_and_stores_in_buckets_show_more(store_path, registry):
    bucket = SimBucket(1)
    remote = RemoteBlobStore.open(bucket.client(), page_size=4096)
    with TieredBlobStore(FileBlobStore.open(store_path, page_size=4096), remote) as tier:
        collector = StoreCollector(tier, "tier")
        collector.add(remote, "bucket")
        collector.add(MemoryBlobStore(page_size=4096), "plain")
        registry.register(collector)
        tier.commit([(bytes(16), bytes(4096))])
        tier.durable_remotely()
        tier.read_blob(bytes(16), bytearray(4096))

        def shown(name, store):
            return registry.get_sample_value(f"uringblob_{name}", {"store": store})

        assert shown("tier_hits_total", "tier") == 1
        assert shown("tier_uploaded_bytes_total", "tier") == 4096
        assert shown("tier_waiting_seconds", "tier") == 0
        assert shown("tier_stopped", "tier") == 0
        assert shown("remote_groups_total", "bucket") == 1
        assert shown("remote_requests_total", "bucket") > shown("remote_retries_total", "bucket") == 0
        assert shown("tier_hits_total", "plain") is shown("remote_requests_total", "tier") is None
        with RemoteBlobStore.open(bucket.client()):
            tier.commit([(bytes(16), b"1" * 4096)])
            with pytest.raises(WriterFenced):
                tier.durable_remotely()
            assert shown("tier_stopped", "tier") == shown("remote_fenced", "bucket") == 1
            assert shown("tier_waiting_bytes", "tier") == 4096


def test_the_counters_beyond_one_machine_are_fields():
    fields = {*TierStats.__dataclass_fields__, *RemoteStats.__dataclass_fields__}
    assert fields >= BEYOND_COUNTERS


def test_the_counters_are_fields():
    assert set(StoreStats.__dataclass_fields__) >= COUNTERS


def test_two_stores_share_each_family_of_one_page(registry):
    """A page with two HELP lines of one name is refused by the server: two collectors would make one."""
    one, two = MemoryBlobStore(page_size=4096), MemoryBlobStore(page_size=4096)
    collector = StoreCollector(one, "one")
    collector.add(two, "two")
    registry.register(collector)
    two.write_blob(bytes(16), bytes(4096))
    page = prometheus_client.generate_latest(registry).decode()
    assert 'uringblob_blobs{store="one"} 0.0' in page
    assert 'uringblob_blobs{store="two"} 1.0' in page
    heads = [line for line in page.splitlines() if line.startswith("# HELP")]
    assert len(heads) == len(set(heads))
    with pytest.raises(ValueError):
        collector.add(one, "two")
    collector.remove("one")
    assert 'store="one"' not in prometheus_client.generate_latest(registry).decode()


def test_space_and_snapshots_are_those_of_the_store(store_path, registry):
    with FileBlobStore.open(store_path, page_size=4096, max_bytes=8 << 20) as store:
        registry.register(StoreCollector(store))
        store.commit([(bytes(16), bytes(4096)), (b"1" * 16, bytes(4096))])
        with store.snapshot():
            store.commit(deletes=[bytes(16)])
            stats = store.stats()
            shown = {
                figure: registry.get_sample_value(f"uringblob_{figure}", {"store": "default"})
                for figure in ("file_bytes", "allocated_bytes", "max_bytes", "snapshots", "held_bytes")
            }
    assert shown == {
        "file_bytes": os.stat(store_path).st_size,
        "allocated_bytes": stats.allocated_bytes,
        "max_bytes": 8 << 20,
        "snapshots": 1,
        "held_bytes": 4096,
    }


@pytest.fixture
def scrubbed(registry, monkeypatch):
    """A collector, and the scrub's figures as they are exported; ``now`` is the clock's time."""
    collector = StoreCollector(MemoryBlobStore(4096), "main")
    registry.register(collector)
    monkeypatch.setattr("time.time", lambda: collector.now)
    names = ("checked_blobs", "bad_blobs", "metadata_errors", "finished_timestamp_seconds")
    collector.shown = lambda store="main": [
        registry.get_sample_value(f"uringblob_scrub_{name}", {"store": store}) for name in names
    ]
    return collector


MIDDLE = BlobGuid(b"7" * 16)
BAD = ((MIDDLE, BlobCorrupt("bad", MIDDLE)),)


def test_a_store_that_was_never_scrubbed_has_no_figures_of_a_scrub(scrubbed):
    assert scrubbed.shown() == [None] * 4


def test_the_steps_of_a_scrub_are_one_pass_and_its_bad_blobs_are_exported_at_once(scrubbed):
    scrubbed.record_scrub(VerifyReport(bad=BAD, blobs_checked=3, resume=MIDDLE), "main")
    assert scrubbed.shown() == [None, 1, None, None]
    scrubbed.now = 1000.0
    last = VerifyReport(blobs_checked=2, metadata_errors=(StoreCorrupt("bad"),))
    scrubbed.record_scrub(last, "main", since=MIDDLE)
    assert scrubbed.shown() == [5, 1, 1, 1000.0]


def test_what_was_bad_is_exported_until_a_whole_pass_has_not_found_it(scrubbed):
    scrubbed.now = 1000.0
    scrubbed.record_scrub(VerifyReport(bad=BAD, blobs_checked=5), "main")
    scrubbed.record_scrub(VerifyReport(blobs_checked=3, resume=MIDDLE), "main")
    assert scrubbed.shown() == [5, 1, 0, 1000.0]
    scrubbed.now = 2000.0
    scrubbed.record_scrub(VerifyReport(blobs_checked=2), "main", since=MIDDLE)
    assert scrubbed.shown() == [5, 0, 0, 2000.0]


def test_a_pass_that_ended_early_does_not_count_in_the_next(scrubbed):
    scrubbed.record_scrub(VerifyReport(bad=BAD, blobs_checked=3, resume=MIDDLE), "main")
    scrubbed.now = 1000.0
    scrubbed.record_scrub(VerifyReport(bad=BAD, blobs_checked=5), "main")
    assert scrubbed.shown() == [5, 1, 0, 1000.0]


def test_scrubs_are_kept_apart_by_store_and_go_with_it(scrubbed):
    scrubbed.now = 1000.0
    scrubbed.add(MemoryBlobStore(4096), "other")
    scrubbed.record_scrub(VerifyReport(blobs_checked=5), "main")
    scrubbed.record_scrub(VerifyReport(bad=BAD, blobs_checked=1), "other")
    assert scrubbed.shown() == [5, 0, 0, 1000.0]
    assert scrubbed.shown("other") == [1, 1, 0, 1000.0]
    scrubbed.remove("other")
    assert scrubbed.shown("other") == [None] * 4


def test_without_the_extra_it_says_which_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "uringblob.metrics")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'uringblob\[metrics\]'"):
        importlib.import_module("uringblob.metrics")
