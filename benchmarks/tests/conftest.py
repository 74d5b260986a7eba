"""What the benchmark's own tests share: a tiny setting, and no word about time."""

from __future__ import annotations

import importlib.util

import pytest

INSTALLED = importlib.util.find_spec("uringblob_bench") is not None
collect_ignore_glob = [] if INSTALLED else ["*"]


def pytest_report_header():
    return [] if INSTALLED else ["uringblob-bench is not installed: benchmarks/tests is left out"]


@pytest.fixture
def params():
    """64 frames of 4 KiB."""
    from uringblob_bench.load import Params

    return Params(page_size=4096, file_bytes=64 * 4096)


@pytest.fixture
def workdir(disk_dir):
    """An empty work directory on a real disk."""
    from uringblob_bench.workdir import WorkDir

    with WorkDir(str(disk_dir)) as made:
        yield made
