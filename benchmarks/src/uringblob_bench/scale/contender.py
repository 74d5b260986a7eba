"""A contender of which one turn opens a store of many blobs, in a process of its own."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from uringblob_bench.contenders.base import Contender
from uringblob_bench.interleave import CannotRun
from uringblob_bench.load import Load, Params
from uringblob_bench.sample import Latency, Sample
from uringblob_bench.scale.build import build
from uringblob_bench.workdir import WorkDir

_TIMEOUT_S = 180


class ManyBlobs(Contender):
    """The store with ``blobs`` blobs; a turn's figures stand in its sample's ``extra``."""

    def __init__(self, params: Params, workdir: WorkDir, blobs: int) -> None:
        super().__init__(params, workdir)
        self.blobs = blobs
        self.name = f"{blobs:,} blobs"
        self._paths: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"blobs": self.blobs, "sparse": True, "apparent_bytes": self.blobs * self.params.page_size}

    def prepare(self) -> None:
        """Write two stores of so many blobs; the log of the second is nearly due for compaction."""
        page_size = self.params.page_size
        self._paths = [
            self.workdir.once(
                f"scale-{page_size}-{self.blobs}{suffix}.blobs",
                functools.partial(build, blobs=self.blobs, page_size=page_size, near_compaction=bool(suffix)),
            )
            for suffix in ("", "-near-compaction")
        ]

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:  # noqa: ARG002 - there is one
        command = [sys.executable, "-m", "uringblob_bench.scale.child", *self._paths, str(seconds)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        if ran.returncode:
            raise CannotRun(f"the child ended with {ran.returncode}: {ran.stderr.strip()[-500:]}")
        found = json.loads(ran.stdout)
        median = found["commit_p50_s"]
        return [Sample(1, median, self.params.page_size, Latency.of([median]), extra=found)]
