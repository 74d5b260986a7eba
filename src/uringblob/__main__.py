"""``python -m uringblob``, and the console script."""

import sys


def main() -> int:
    """Import the commands, and run one."""
    from uringblob.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
