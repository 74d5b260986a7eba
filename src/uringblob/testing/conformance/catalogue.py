"""All checks, in the order in which they are asked."""

from __future__ import annotations

from uringblob.testing.conformance import checks_batches
from uringblob.testing.conformance import checks_blobs
from uringblob.testing.conformance import checks_buffers
from uringblob.testing.conformance import checks_end
from uringblob.testing.conformance import checks_file
from uringblob.testing.conformance import checks_names
from uringblob.testing.conformance import checks_together
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
