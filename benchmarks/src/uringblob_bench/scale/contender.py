"""A contender for the alternation: one turn opens one store of many blobs in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from uringblob_bench.contenders.base import Contender
from uringblob_bench.interleave import CannotRun
from uringblob_bench.load import Load, Params
from uringblob_bench.sample import Latency, Sample
from uringblob_bench.workdir import WorkDir

_TIMEOUT_S = 180


class ManyBlobs(Contender):
    """The store with ``blobs`` blobs; a turn's figures stand in its sample's ``extra``."""

    def __init__(self, params: Params, workdir: WorkDir, blobs: int) -> None:
        super().__init__(params, workdir)
        self.blobs = blobs
        self.name = f"{blobs:,} blobs"
        self.path = workdir.path(f"scale-{params.page_size}-{blobs}.blobs")

    def settings(self) -> dict[str, Any]:
        """See :meth:`Contender.settings`."""
        return {"blobs": self.blobs, "sparse": True, "apparent_bytes": self.blobs * self.params.page_size}

    def prepare(self) -> None:
        """See :meth:`Contender.prepare`."""
        page_size = self.params.page_size
        self._child({"do": "build", "path": self.path, "blobs": self.blobs, "page_size": page_size})

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:  # noqa: ARG002 - its work is fixed
        """See :meth:`Contender.turn`."""
        found = self._child({"do": "probe", "path": self.path, "pauses": True})
        median = found["commit_p50_s"]
        latency = Latency.of([median])
        return [Sample(1, median, self.params.page_size, latency, extra=found)]

    def _child(self, settings: dict[str, Any]) -> dict[str, Any]:
        command = [sys.executable, "-m", "uringblob_bench.scale.child", json.dumps(settings)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        if ran.returncode:
            raise CannotRun(f"{settings['do']} ended with {ran.returncode}: {ran.stderr.strip()[-500:]}")
        found: dict[str, Any] = json.loads(ran.stdout)
        return found
