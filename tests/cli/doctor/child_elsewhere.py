"""A child on the barest of systems, where the doctor has little to say and says it."""

from __future__ import annotations

from behaviour import bare_system


def examined(directory):
    bare_system.strip()
    from uringblob.cli.doctor.checks import examine
    from uringblob.cli.doctor.command import as_dict

    return as_dict(examine(directory))
