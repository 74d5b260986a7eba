"""The example at the top of ``uringblob.ring`` works as it stands there."""

from __future__ import annotations

import asyncio
import os
import textwrap

import uringblob.ring
from uringblob.buffers.slab import Slab


def test_the_example_of_the_docstring(disk_dir, needs_direct):
    path = disk_dir / "file"
    path.write_bytes(bytes(1 << 20))
    blocks = [textwrap.dedent(text.split("\n\n", 1)[0]) for text in _after_colons()]
    names = vars(uringblob.ring) | {"asyncio": asyncio, "os": os, "Slab": Slab}
    for block in blocks:
        exec(block, names)
    asyncio.run(names["main"](path))
    assert len(blocks) == 2


def _after_colons():
    return uringblob.ring.__doc__.split("::\n\n")[1:]
