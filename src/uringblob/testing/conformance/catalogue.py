"""All checks, in the order in which they run."""

from __future__ import annotations

from uringblob.testing.conformance import (
    checks_batches,
    checks_blobs,
    checks_buffers,
    checks_conditions,
    checks_end,
    checks_file,
    checks_metadata,
    checks_names,
    checks_snapshots,
    checks_space,
    checks_together,
)
from uringblob.testing.conformance.check import Check

_MODULES = (
    checks_names,
    checks_buffers,
    checks_blobs,
    checks_batches,
    checks_conditions,
    checks_together,
    checks_end,
    checks_snapshots,
    checks_space,
    checks_metadata,
    checks_file,
)
#: Every check, as it stands in its file; parametrize over it, ``ids=str``.
CHECKS = tuple(found for module in _MODULES for found in vars(module).values() if isinstance(found, Check))
