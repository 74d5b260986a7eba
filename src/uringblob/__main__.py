"""``python -m uringblob``, and the console script."""

import sys

from uringblob.cli.start import QuietInterrupts


def main() -> int:
    """Import the commands, which takes most of a short command's time, and run one."""
    with QuietInterrupts():
        from uringblob.cli.main import main as run
    return run()


if __name__ == "__main__":
    sys.exit(main())
