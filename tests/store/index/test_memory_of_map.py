"""Two million blobs fit into 400 MB: the map's representation was chosen for it."""

from __future__ import annotations

import subprocess
import sys

BLOBS = 2_000_000
LIMIT_MB = 400

CHILD = f"""
import re
from uringblob.store.format import pack_entry
from uringblob.store.index.blob_index import BlobIndex
from uringblob.store.index.shards import Shards
from uringblob.store.index.slots import SlotTable

rng = __import__("random").Random(1)
index = BlobIndex(SlotTable(2, {BLOBS} + 2))
entries = Shards()
entries.update((rng.randbytes(16), pack_entry(2 + i, rng.getrandbits(64))) for i in range({BLOBS}))
assert index.load(entries, [], 1) is None
assert len(index) == {BLOBS}
# Not getrusage: a process begins with the peak of the one that started it.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024)
"""


def test_two_million_blobs_fit_into_400_mb():
    """The peak of the whole process, interpreter and library included."""
    result = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, check=False, timeout=200
    )
    assert result.returncode == 0, result.stderr
    peak_mb = int(result.stdout)
    assert peak_mb < LIMIT_MB, f"{BLOBS} blobs took {peak_mb} MB"
