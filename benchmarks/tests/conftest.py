"""What the benchmark's own tests share: a tiny setting, and no word about time."""

from __future__ import annotations

import pytest

pytest.importorskip("rich", reason="n/a: the extra `bench` is not installed")
pytest.importorskip("matplotlib", reason="n/a: the extra `bench` is not installed")


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
