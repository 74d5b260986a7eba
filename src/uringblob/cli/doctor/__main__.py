"""``python -m uringblob.cli.doctor``: the doctor alone."""

from __future__ import annotations

import sys

from uringblob.cli.start import QuietInterrupts

with QuietInterrupts():
    from uringblob.cli.doctor.command import main

sys.exit(main())
