"""``python -m uringblob_bench``."""

import sys

from uringblob.cli.start import QuietInterrupts

with QuietInterrupts():
    from uringblob_bench.command import main

sys.exit(main())
