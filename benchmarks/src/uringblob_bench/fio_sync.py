"""Does fio's fdatasync come after its writes?  Asked of strace and of the device, not of fio.

``strace`` shows each ``io_uring_enter``: how many requests fio submitted, and for how many
completions it waited.  With one sync after every N writes it is known which requests are syncs;
a sync is trusted only if fio had waited for all writes before it when it submitted it.  The
device's own count of flushes says whether the syncs did anything at all.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess

from uringblob_bench.contenders.fio import Fio, fio_version
from uringblob_bench.device import flushes
from uringblob_bench.load import Load, Params, Verb
from uringblob_bench.workdir import WorkDir

_ENTER = re.compile(r"io_uring_enter\(\d+, (\d+), (\d+), .*\) = (\d+)")
_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class SyncEvidence:
    """What was seen in ``enters`` calls that made ``submitted`` requests, ``syncs`` of them syncs."""

    known: bool
    words: str
    enters: int = 0
    submitted: int = 0
    syncs: int = 0
    early_syncs: int = 0
    #: Flushes of the whole device meanwhile, other programs' included; ``None``: not known.
    device_flushes: int | None = None

    @property
    def trusted(self) -> bool:
        """Whether every sync was submitted only after the writes that it is for had ended."""
        return self.known and self.syncs > 0 and self.early_syncs == 0


def judge(trace: str, batch: int, device_flushes: int | None = None) -> SyncEvidence:
    """Read a trace of ``io_uring_enter``; every ``batch + 1``-th request is a sync."""
    submitted = waited = enters = syncs = early = 0
    for wanted, least, took in _ENTER.findall(trace):
        enters += 1
        for _ in range(min(int(took), int(wanted))):
            submitted += 1
            if submitted % (batch + 1) == 0:
                syncs += 1
                # All before it must be known to have ended: submitted in earlier calls, and waited for.
                early += waited < submitted - 1
        # A wait for n tells of n completions, but of no more than there can be.
        waited = min(waited + int(least), submitted)
    if not syncs:
        return SyncEvidence(False, "strace saw no sync of fio's", enters, submitted)
    words = (
        f"fio submitted {early} of {syncs} syncs before it had waited for their writes"
        if early
        else f"fio waited for its writes before each of {syncs} syncs"
    )
    return SyncEvidence(True, words, enters, submitted, syncs, early, device_flushes)


def fio_sync_evidence(params: Params, workdir: WorkDir, batch: int) -> SyncEvidence:
    """Run fio's durable-batch job under strace for a moment."""
    if not fio_version():
        return SyncEvidence(False, "fio is not installed")
    if shutil.which("strace") is None:
        return SyncEvidence(False, "strace is not installed, so fio is not trusted to wait for its writes")
    fio = Fio(params, workdir)
    loads = (Load(Verb.BATCH, 1, batch),)
    variables = {**fio.environment(loads, _SECONDS), "FIO_RAMP": "0"}
    trace = workdir.path(f"strace-{batch}.txt")
    before = flushes(workdir.directory)
    command = ["strace", "-f", "-o", trace, "-e", "trace=io_uring_enter", *fio.command(loads, variables)]
    ran = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
    )
    after = flushes(workdir.directory)
    if ran.returncode:
        return SyncEvidence(False, f"strace ended with {ran.returncode}: {ran.stderr.strip()[-200:]}")
    with open(trace, encoding="utf-8", errors="replace") as file:
        text = file.read()
    return judge(text, batch, None if before is None or after is None else after - before)
