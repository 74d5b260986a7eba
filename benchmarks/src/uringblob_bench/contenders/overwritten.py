"""A store whose frames are overwritten again and again: what becomes of the length of its file."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Sequence
from typing import Any

from uringblob import FileBlobStore
from uringblob_bench.contenders.base import Contender
from uringblob_bench.contenders.store import guid_of
from uringblob_bench.load import Load, Params
from uringblob_bench.sample import Latency, Sample
from uringblob_bench.workdir import WorkDir, noise

#: Frames of one commit: each is drawn anew, so that free slots do not fit what is asked for next.
BATCHES = (1, 2, 3, 5, 8, 13, 64)
_KIB = 1 << 10


class Overwritten(Contender):
    """A store of ``live`` frames; a turn goes on to overwrite, until each was so often, on average.

    How often is a turn's ``target``; the turn's figures stand in its sample's ``extra``.
    """

    def __init__(self, params: Params, workdir: WorkDir, live: int) -> None:
        super().__init__(params, workdir)
        self.live = live
        self.name = f"{live:,} frames of {params.page_size // _KIB} KiB"
        self.target = 0.0
        self._path = workdir.path(f"overwritten-{params.page_size}-{live}.blobs")
        self._dice = random.Random(live)  # noqa: S311 - a benchmark repeats itself from its seed
        self._overwritten = -1  # there is no store yet
        self._amplification = 0.0

    def settings(self) -> dict[str, Any]:
        return {"live": self.live, "frames of a commit": BATCHES, "amplification": self._amplification}

    def prepare(self) -> None:
        if self._overwritten < 0:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self._work(self.live, filling=True)
            self._overwritten = 0

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:  # noqa: ARG002 - its work is fixed
        missing = max(int(self.target * self.live) - self._overwritten, 0)
        frames, latencies, extra = self._work(missing)
        self._overwritten += frames
        extra["overwritten"] = self._overwritten
        return [Sample(frames, sum(latencies), self.params.page_size, Latency.of(latencies), extra=extra)]

    def _work(self, frames: int, *, filling: bool = False) -> tuple[int, list[float], dict[str, Any]]:
        """Commit so many frames, the whole store in order or random ones."""
        done, latencies = 0, []
        with (
            FileBlobStore.open(self._path, page_size=self.params.page_size) as store,
            contextlib.ExitStack() as held,
        ):
            buffers = [held.enter_context(store.alloc_blob_buf_uninit()) for _ in range(max(BATCHES))]
            for buffer in buffers:
                buffer.view[:] = noise(self.params.page_size)
            while done < frames:
                if filling:
                    some: Sequence[int] = range(done, min(done + max(BATCHES), self.live))
                else:
                    some = self._dice.sample(range(self.live), min(self._dice.choice(BATCHES), self.live))
                started = time.perf_counter()
                store.commit([(guid_of(n), buffer) for n, buffer in zip(some, buffers, strict=False)])
                latencies.append(time.perf_counter() - started)
                done += len(some)
            stats = store.stats()
        self._amplification = stats.amplification
        extra = {
            "amplification": stats.amplification,
            "file_bytes": stats.file_bytes,
            "log_bytes": stats.log_bytes,
        }
        return done, latencies, extra
