"""``python -m uringblob.bench``."""

import sys

from uringblob.bench.command import main

sys.exit(main())
