"""The page "Run it for years": its commands run, its alerts name metrics that exist, its messages are real.

The shell lines run in ``tests/cli/test_page.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import os
import re
from pathlib import Path

import pytest

from uringblob import (
    INCOMPLETE,
    BlobGuid,
    BlobStoreError,
    FileBlobStore,
    StoreCorrupt,
    VerifyReport,
    _native,
    errors,
)
from uringblob.api.observer import OPERATIONS
from uringblob.cli.main import main
from uringblob.remote import RemoteBlobStore
from uringblob.store.format import SUPERBLOCK_OFFSETS, VERSION, decode_superblock
from uringblob.testing import SimBucket
from uringblob.tiered import TieredBlobStore

pytestmark = pytest.mark.one_interpreter

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "operators" / "years.md").read_text("utf-8")
SIZE = 4096
GUID = BlobGuid(bytes(range(16)))

# ---- alerts ---------------------------------------------------------------------------------

ALERTS = re.search(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL).group(1)
#: Each with its lines joined.
EXPRESSIONS = [
    " ".join(found.split()) for found in re.findall(r"expr: (?:>-\n)?(.*?)(?=\n +(?:for|- alert|#)|\Z)", ALERTS, re.DOTALL)
]  # fmt: skip
PROMQL = set("increase max_over_time time rate sum by le histogram_quantile or and unless offset 15m".split())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Names of samples, each with its labels, of a store that was used, and scrubbed."""
    prometheus_client = pytest.importorskip(
        "prometheus_client", reason="the extra [metrics] is not installed"
    )
    from uringblob.metrics import PrometheusObserver, StoreCollector

    registry = prometheus_client.CollectorRegistry()
    path = tmp_path_factory.mktemp("exported") / "a.blobs"
    with (
        contextlib.ExitStack() as ends,
        FileBlobStore.open(path, page_size=SIZE, observer=PrometheusObserver(registry)) as store,
    ):
        collector = StoreCollector(store)
        registry.register(collector)
        store.commit([(GUID, bytes(SIZE))])
        collector.record_scrub(VerifyReport())
        remote = RemoteBlobStore.open(SimBucket(1).client(), page_size=SIZE)
        tier = TieredBlobStore(FileBlobStore.open(path.with_name("b.blobs"), page_size=SIZE), remote)
        ends.callback(tier.close)
        collector.add(tier, "tier")
        collector.add(remote, "bucket")
        return {sample.name: set(sample.labels) for family in registry.collect() for sample in family.samples}


def test_every_alert_has_an_expression():
    assert len(EXPRESSIONS) == ALERTS.count("- alert:") > 5


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_alerts_name_only_metrics_labels_and_values_that_exist(expression, exported):
    for name, matchers in re.findall(r"(uringblob_\w+)\{([^}]*)\}", expression):
        assert name in exported
        for label, value in re.findall(r'(\w+)(?:=~|!=|=)"([^"]*)"', matchers):
            assert label in exported[name]
            if label == "outcome":
                assert [error for error in vars(errors) if re.fullmatch(value, error)]
            if label == "operation":
                assert value in OPERATIONS
    bare = re.sub(r"\{[^}]*\}|\[\w+\]", " ", expression)
    words = set(re.findall(r"\b[a-zA-Z_]\w*|\d+[a-z]\b", bare))
    assert words - PROMQL <= set(exported)
    assert words & set(exported)
    assert bare.count("(") == bare.count(")")


def test_the_metrics_that_monitoring_names_exist(exported):
    page = (Path(__file__).resolve().parent.parent / "docs" / "operators" / "monitoring.md").read_text(
        "utf-8"
    )
    named = set(re.findall(r"`(uringblob_[a-z_]+)", page))
    named -= {"uringblob_", "uringblob_tier_", "uringblob_remote_"}  # NAME stands for the rest
    assert {"uringblob_held_bytes", "uringblob_scrub_finished_timestamp_seconds"} <= named
    families = {re.sub(r"_(count|sum|bucket|created)$", "", name) for name in exported}
    assert named <= families | set(exported)


# ---- messages -------------------------------------------------------------------------------

#: What each row quotes, as a pattern: ``...`` stands for anything.
ROWS = [
    re.compile(".*".join(map(re.escape, quoted.split("..."))), re.DOTALL)
    for quoted in re.findall(r'^\| "([^"]+)" \|', PAGE, re.MULTILINE)
]


def failing(number):
    def call(*_):
        raise OSError(number, os.strerror(number))

    return call


def printed_by(*argv):
    """Run a command, whose error a fixture captures."""
    assert main(list(map(str, argv))) in (1, 3)


def raised_by(call, *args, **kwargs):
    with pytest.raises((BlobStoreError, StoreCorrupt)) as caught:
        call(*args, **kwargs)
    print(caught.value)


def filled(store):
    while True:
        store.commit([(BlobGuid.random(), bytes(SIZE))])


def new_store(path, **options):
    store = FileBlobStore.open(path, page_size=SIZE, **options)
    store.commit([(GUID, bytes(range(256)) * (SIZE // 256))])
    return store


def refused_io_uring(path, monkeypatch):
    monkeypatch.setattr(_native, "lib", None)
    monkeypatch.setattr(_native, "unavailable_reason", "left out for this test")
    monkeypatch.delenv("URINGBLOB_ENGINE", raising=False)
    new_store(path).close()


def locked(path, monkeypatch):
    with new_store(path):
        printed_by("rm", path, str(BlobGuid.random()), "--lock-timeout", "0")


def full_disk(path, monkeypatch):
    with new_store(path, engine="pread") as store:
        monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
        raised_by(filled, store)


def at_its_limit(path, monkeypatch):
    with new_store(path) as store:
        store.set_max_bytes(store.stats().file_bytes)
        raised_by(filled, store)


def poisoned(path, monkeypatch):
    with contextlib.suppress(BlobStoreError):
        monkeypatch.setattr(os, "fdatasync", sync := Switch(os.fdatasync))
        with new_store(path, engine="pread") as store:
            sync.fails = True
            store.commit([(GUID, bytes(SIZE))])
    assert store.stats().poisoned


class Switch:
    """A system call that can be made to fail."""

    def __init__(self, call):
        self._call, self.fails = call, False

    def __call__(self, *args):
        return failing(errno.EIO)() if self.fails else self._call(*args)


def bad_frame(path, monkeypatch):
    new_store(path).close()
    content = Path(path).read_bytes()
    place = content.index(bytes(range(256)) * 2)
    Path(path).write_bytes(content[:place] + b"x" + content[place + 1 :])
    printed_by("get", path, GUID, os.devnull)


def removed(path, monkeypatch):
    with new_store(path) as store:
        os.unlink(path)
        raised_by(store.commit, [(GUID, bytes(SIZE))])


def wiped(path, monkeypatch):
    new_store(path).close()
    Path(path).write_bytes(bytes(8192) + Path(path).read_bytes()[8192:])
    printed_by("verify", path)


def strange(path, monkeypatch):
    Path(path).write_bytes(b"another program's file" * 1000)
    printed_by("verify", path)


def newer(path, monkeypatch):
    new_store(path).close()
    content = bytearray(Path(path).read_bytes())
    for offset in SUPERBLOCK_OFFSETS:
        block = bytes(content[offset : offset + 4096])
        superblock = decode_superblock(block, offset)
        made = dataclasses.replace(superblock, version=VERSION + 1).encode(offset)
        content[offset : offset + len(made)] = made
    Path(path).write_bytes(content)
    printed_by("verify", path)


def incomplete(path, monkeypatch):
    with new_store(path) as store:
        store.commit([(INCOMPLETE, bytes(SIZE))])
    printed_by("restore", path, f"{path}.restored")


FAILURES = [
    *(refused_io_uring, locked, full_disk, at_its_limit, poisoned, bad_frame),
    *(removed, wiped, strange, newer, incomplete),
]


def test_each_row_has_its_failure():
    assert len(ROWS) == len(FAILURES) == PAGE.count('\n| "')


@pytest.mark.parametrize(
    ("row", "failure"), [*zip(ROWS, FAILURES, strict=True)], ids=lambda x: getattr(x, "__name__", "")
)
def test_a_failure_is_printed_as_the_page_quotes_it(row, failure, store_path, monkeypatch, capsys, caplog):
    with caplog.at_level(logging.WARNING, logger="uringblob"):
        failure(store_path, monkeypatch)
    captured = capsys.readouterr()
    printed = [*captured.out.splitlines(), *captured.err.splitlines(), *caplog.messages]
    assert [line for line in printed if row.search(line)], printed
