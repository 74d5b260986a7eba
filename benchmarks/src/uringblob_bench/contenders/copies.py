"""A store's file copied: by ``backup()``, which verifies it, and by ``cp`` with a sync."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from uringblob import FileBlobStore
from uringblob_bench.contenders.base import Contender
from uringblob_bench.contenders.store import StoreFiller
from uringblob_bench.load import Load, Params
from uringblob_bench.sample import Latency, Sample
from uringblob_bench.workdir import WorkDir


class _Copies(Contender):
    """A turn makes one copy, whatever time that takes; the copy is removed."""

    durability = "the copy is durable when a turn ends"

    def __init__(self, params: Params, workdir: WorkDir) -> None:
        super().__init__(params, workdir)
        self.filler = StoreFiller(params, workdir, "io_uring")

    def settings(self) -> dict[str, Any]:
        return {"durability": self.durability}

    def prepare(self) -> None:
        self.filler.prepare()

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:  # noqa: ARG002 - its work is fixed
        target = self.workdir.path("copy")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        _forget_cached(self.filler.path)
        before, began = os.times(), time.perf_counter()
        frames = self.copy(self.filler.path, target)
        took_s, after = time.perf_counter() - began, os.times()
        os.unlink(target)
        user_s = after.user - before.user + after.children_user - before.children_user
        system_s = after.system - before.system + after.children_system - before.children_system
        return [Sample(frames, took_s, self.params.page_size, Latency.of([took_s]), user_s, system_s)]

    def copy(self, source: str, target: str) -> int:
        """Make a durable copy; return how many frames were copied."""
        raise NotImplementedError


class Backup(_Copies):
    """``backup()`` of an open store into a new file: the live frames, each verified as it is read."""

    name = "backup"

    def copy(self, source: str, target: str) -> int:
        with FileBlobStore.open(source) as store:
            report = store.backup(target)
            if not report.ok:
                raise RuntimeError(str(report))
            return report.copied


class CpAndSync(_Copies):
    """``cp`` of the whole file, through the page cache, and one sync."""

    name = "cp and sync"

    def copy(self, source: str, target: str) -> int:
        subprocess.run(["cp", "--reflink=never", "--sparse=never", source, target], check=True)
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return os.path.getsize(target) // self.params.page_size


def _forget_cached(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
