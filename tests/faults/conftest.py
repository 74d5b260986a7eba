"""What the fault tests share: memory for files whose flushes cost nothing, so that loops are short."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest


@pytest.fixture
def quick_dir(disk_dir):
    """An empty directory on a tmpfs where there is one: for faults that come from the engine's side."""
    if not os.access("/dev/shm", os.W_OK):
        yield disk_dir
        return
    directory = tempfile.mkdtemp(prefix="uringblob-test-", dir="/dev/shm")
    yield type(disk_dir)(directory)
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def quick_path(quick_dir):
    """The path of a store that does not exist yet, there."""
    return str(quick_dir / "store.blobs")
