"""Nobody closed the store: it is collected, or the interpreter ends.

That is a clean end: no hang, no traceback, nothing flushed, and what was durable is there.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from behaviour import child_exit
from behaviour.child_exit import DURABLE, FRAME, PAGE, PENDING
from behaviour.children import TESTS
from uringblob import FileBlobStore

PATIENCE = 60
WAYS = [
    "sync_open",
    "sync_local",
    "sync_daemons",
    "sync_daemons_and_exception",
    "sync_with_block_and_daemons",
    "async_open",
    "async_loop_open",
    "async_in_flight",
]


def end(how, path, engine, *flags):
    """Run a script of ``child_exit`` to its end; return what it printed."""
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    child = subprocess.run(
        [sys.executable, *flags, "-m", "behaviour.child_exit", how, path, engine],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert "Traceback" not in child.stderr, child.stderr
    assert "Fatal" not in child.stderr, child.stderr
    return child.stdout


def contents(path, engine):
    with FileBlobStore.open(path, engine=engine) as store:
        assert store.verify().ok
        frame = bytearray(PAGE)
        store.read_blob(DURABLE, frame)
        assert frame == FRAME
        return store.has_blob(PENDING)


@pytest.mark.parametrize("how", WAYS)
def test_the_interpreter_ends(store_path, engine, how):
    for _ in range(2 if "daemons" in how else 1):  # daemons are somewhere else each time
        out = end(how, store_path, engine)
        assert "ready" in out or how == "sync_daemons_and_exception"
        there = contents(store_path, engine)
        # A group of a daemon's may have carried it; nobody else has flushed.
        assert not there or "daemons" in how
        if there:
            os.unlink(store_path)


def test_collected_it_warns_and_does_not_flush(store_path, engine):
    out = end("collected", store_path, engine)
    assert "sync: ['ResourceWarning']\nasync: ['ResourceWarning']\n" in out
    assert not contents(store_path, engine)


def test_ways_are_all_there():
    assert all(hasattr(child_exit, way) for way in WAYS)
