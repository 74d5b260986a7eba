"""Runs first in every Python that a test starts: as soon as ``uringblob`` is imported, its stores are watched.

Nothing is imported before that, so that a child which asks what an import costs or brings gets its answer.
``monitor/children.py`` puts this directory on the path.
"""

from __future__ import annotations

import os
import sys

PACKAGE = "uringblob"
TESTS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class _Watch:
    """Finds the package as the others do, and goes on when it has been imported."""

    asking = False

    def find_spec(self, name, path=None, target=None):
        if name != PACKAGE or self.asking:
            return None
        import importlib.util

        self.asking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.asking = False
        if spec is not None:
            real = spec.loader.exec_module

            def exec_module(module):
                real(module)
                _install()

            spec.loader.exec_module = exec_module
        return spec


def _install() -> None:
    known = list(sys.path)
    sys.path.append(TESTS)
    try:
        import monitor.install  # noqa: F401 - in a child, it installs itself
    finally:
        sys.path[:] = known


if os.environ.get("URINGBLOB_ORDER_ALARMS"):
    sys.meta_path.insert(0, _Watch())
