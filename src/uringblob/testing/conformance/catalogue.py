"""All checks, in the order in which they are asked."""

from __future__ import annotations

from uringblob.testing.conformance import (
    checks_batches,
    checks_blobs,
    checks_buffers,
    checks_end,
    checks_file,
    checks_names,
    checks_together,
)
from uringblob.testing.conformance.check import Check

#: Every check; parametrize over it, ``ids=str``.
CHECKS: tuple[Check, ...] = (
    *checks_names.CHECKS,
    *checks_buffers.CHECKS,
    *checks_blobs.CHECKS,
    *checks_batches.CHECKS,
    *checks_together.CHECKS,
    *checks_end.CHECKS,
    *checks_file.CHECKS,
)
