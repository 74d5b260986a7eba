"""What ``uringblob doctor --json`` prints, in this process."""

from __future__ import annotations

from uringblob.cli.doctor.checks import run_checks
from uringblob.cli.doctor.command import as_dict
from uringblob.cli.doctor.diagnosis import diagnose
from uringblob.cli.doctor.facts import gather


def report(directory):
    results = run_checks(directory)
    return as_dict(results, diagnose(gather(results)))
