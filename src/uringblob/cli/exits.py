"""What the command's exit codes mean; ``--help`` and docs/users/reference/cli.md say the same."""

from __future__ import annotations

from typing import Final

from uringblob.cli.errors import EXIT_FAILED, EXIT_USAGE
from uringblob.cli.start import EXIT_INTERRUPTED

OK: Final = 0
#: The command ran and the answer is no: no such blob, a bad blob, some input refused.
NO: Final = 1
#: The command line or the input makes no sense; argparse uses the same number.
USAGE: Final = EXIT_USAGE
#: The store cannot be opened, or the system refused an I/O, that of the output too.
FAILED: Final = EXIT_FAILED
#: Ctrl-C: the store is sound; what was not acknowledged may be missing.
INTERRUPTED: Final = EXIT_INTERRUPTED

TEXT: Final = """\
exit codes:
  0    done
  1    the answer is no: no such blob, or a blob is bad
  2    wrong usage, or input of a wrong length
  3    the store cannot be opened, an I/O failed, or nobody reads the output
  130  interrupted; the store is sound
under --json an error is one JSON object on standard error, with the code in it
"""
