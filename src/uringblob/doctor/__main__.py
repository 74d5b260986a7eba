"""``python -m uringblob.doctor``: the doctor alone."""

from __future__ import annotations

import sys

from uringblob.start import QuietInterrupts

with QuietInterrupts():
    from uringblob.doctor.command import main

sys.exit(main())
