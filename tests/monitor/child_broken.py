"""Children with a bug in their store."""

from __future__ import annotations

import os
import signal

from uringblob import BlobGuid, FileBlobStore

PAGE = 4096


def commit(path, engine="pread"):
    """Commit one blob."""
    with FileBlobStore.open(path, engine=engine, page_size=PAGE) as store:
        store.commit([(BlobGuid(b"a" * 16), bytes(PAGE))])


def commit_and_die(path):
    """The same, and die at once."""
    store = FileBlobStore.open(path, engine="pread", page_size=PAGE)
    store.commit([(BlobGuid(b"a" * 16), bytes(PAGE))])
    os.kill(os.getpid(), signal.SIGKILL)


def commit_in_a_fork(path):
    """The same in a fork of the child."""
    pid = os.fork()
    if pid == 0:
        commit(path)
        os._exit(0)
    os.waitpid(pid, 0)
