"""``python -m uringblob``, and the console script."""

import sys

from uringblob.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
