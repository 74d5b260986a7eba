"""``python -m uringblob.bench``."""

import sys

from uringblob.cli.start import QuietInterrupts

with QuietInterrupts():
    from uringblob.bench.command import main

sys.exit(main())
