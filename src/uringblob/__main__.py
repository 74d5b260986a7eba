"""``python -m uringblob``."""

import sys

from uringblob.cli.main import main

sys.exit(main())
