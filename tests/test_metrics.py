"""The Prometheus adapter: what its page shows is what was done."""

from __future__ import annotations

import importlib
import sys

import pytest

prometheus_client = pytest.importorskip("prometheus_client", reason="the extra [metrics] is not installed")

from uringblob import BlobNotFound, FileBlobStore, MemoryBlobStore, StoreStats  # noqa: E402 - needs the line above
from uringblob.metrics import COUNTERS, PrometheusObserver, StoreCollector  # noqa: E402


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
    assert f'uringblob_amplification{{store="main"}} {store.stats().amplification}' in page


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


def test_without_the_extra_it_says_which_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "uringblob.metrics")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'uringblob\[metrics\]'"):
        importlib.import_module("uringblob.metrics")
