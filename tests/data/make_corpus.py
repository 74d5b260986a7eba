"""Make tests/data/corpus: small stores of several shapes, for the fuzzer to begin from.

    python tests/data/make_corpus.py

Each is cut behind its last log block, which keeps it small; compressed with xz.
"""

from __future__ import annotations

import lzma
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from fuzz.attack import the_victims  # noqa: E402 - only importable from there

for number, victim in enumerate(the_victims()):
    end = min(victim.image.size, max(victim.log) + 4096)
    data = victim.image.read(0, end)
    name = f"compactions-{victim.compactions}-{'closed' if victim.closed else 'killed'}.xz"
    (HERE / "corpus" / name).write_bytes(lzma.compress(data))
    print(number, name, len(data))
