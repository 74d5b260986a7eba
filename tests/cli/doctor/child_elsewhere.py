"""A child on the barest of systems, where the doctor has little to report, and reports that."""

from __future__ import annotations

from behaviour import bare_system


def checked_elsewhere(directory):
    bare_system.strip()
    from cli.doctor.child_report import report

    return report(directory)
