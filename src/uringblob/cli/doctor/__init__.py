"""``uringblob doctor``: what will run here, why not more, and the one command that fixes it.

Each check examines one thing and returns a :class:`~uringblob.cli.doctor.facts.CheckResult`.  Their facts
become one :class:`~uringblob.cli.doctor.facts.Facts`, and :mod:`uringblob.cli.doctor.diagnosis` deduces
the causes.  Whether an engine works is never deduced: a real store is opened with each.
"""

from uringblob.cli.doctor.command import EXAMPLES as EXAMPLES
from uringblob.cli.doctor.command import EXIT_CODES as EXIT_CODES
from uringblob.cli.doctor.command import add_arguments as add_arguments
from uringblob.cli.doctor.command import run as run
