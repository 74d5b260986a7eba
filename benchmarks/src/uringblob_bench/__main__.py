"""``python -m uringblob_bench``."""

import sys

from uringblob_bench.command import main

sys.exit(main())
