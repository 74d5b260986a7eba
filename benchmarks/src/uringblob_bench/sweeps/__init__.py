"""The sweeps by name, in the order in which a full run takes them."""

from uringblob_bench.sweeps import batches, depth, overwrites, settings
from uringblob_bench.sweeps.base import Sweep

#: By name.
SWEEPS: dict[str, Sweep] = {
    sweep.name: sweep for sweep in [*depth.SWEEPS, *settings.SWEEPS, *batches.SWEEPS, *overwrites.SWEEPS]
}

#: What a quick run takes of them.
QUICK = ("depth-reads", "batches")

__all__ = ["QUICK", "SWEEPS", "Sweep"]
