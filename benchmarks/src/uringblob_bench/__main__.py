"""``python -m uringblob_bench`` is ``python -m uringblob bench``."""

import runpy
import sys

sys.argv.insert(1, "bench")
runpy.run_module("uringblob", run_name="__main__", alter_sys=True)
