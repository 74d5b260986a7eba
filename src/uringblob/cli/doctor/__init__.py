"""``uringblob doctor``: what will run here, why not more, and the one command that mends it.

Each check looks at one thing and returns :class:`~uringblob.cli.doctor.check_result.CheckResult`; all that they
learned becomes :class:`~uringblob.cli.doctor.facts.Facts`, and :mod:`uringblob.cli.doctor.causes` is the table
from facts to causes.  Whether an engine works is never deduced: a real store is opened with each.
"""
