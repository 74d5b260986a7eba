"""The sweeps by name, in the order in which a full run takes them."""

from uringblob.bench.sweeps import batches, depth, settings
from uringblob.bench.sweeps.base import Sweep

#: By name.
SWEEPS: dict[str, Sweep] = {sweep.name: sweep for sweep in [*depth.SWEEPS, *settings.SWEEPS, *batches.SWEEPS]}

__all__ = ["SWEEPS", "Sweep"]
