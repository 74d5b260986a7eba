"""One lot in a process of its own: steps, counts sent home, failures told with what replays them."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from monitor import install
from torture.rows import REGISTERED, Lot, load

#: Counts are sent home at most this often.
_REPORT_S = 0.2


def real_directory() -> str:
    """Return a directory on a real disk (``URINGBLOB_TEST_DIR`` decides), for a lot's files."""
    named = os.environ.get("URINGBLOB_TEST_DIR")
    places = [named] if named else ["/var/tmp", tempfile.gettempdir()]
    return next(place for place in places if os.access(place, os.W_OK))


def work(key: str, modules: tuple[str, ...], lot: Lot, seconds: float, home, stop) -> None:
    """Do ``lot`` of the row ``key``; ``home`` is a pipe's end, ``stop`` an event that ends it early."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner asks us to stop, between two steps
    faulthandler.enable()
    warnings.simplefilter("error")
    load(modules=modules)
    install.install_here()
    lot.directory = Path(tempfile.mkdtemp(prefix="uringblob-torture-", dir=real_directory()))
    lot.deadline = time.monotonic() + seconds
    unobserved = REGISTERED[key].unobserved
    try:
        with install.switched_off() if unobserved else contextlib.nullcontext():
            _steps(key, lot, home, stop)
    finally:
        install.uninstall()
        shutil.rmtree(lot.directory, ignore_errors=True)
        home.close()


def _steps(key: str, lot: Lot, home, stop) -> None:
    pending: dict[str, int] = {}
    reported = time.monotonic()
    steps = REGISTERED[key].run(lot)
    try:
        for counts in steps:
            if wrong := install.take():
                raise AssertionError("\n".join(wrong))
            for name, count in counts.items():
                pending[name] = pending.get(name, 0) + count
            now = time.monotonic()
            if now - reported >= _REPORT_S:
                home.send(("counts", pending, lot.at))
                pending, reported = {}, now
            if now >= lot.deadline or stop.is_set():
                steps.close()
                home.send(("counts", pending, lot.at))
                home.send(("ended", "time", lot.at))
                return
    except BaseException as error:
        home.send(("counts", pending, lot.at))
        home.send(("failed", (str(error), traceback.format_exc()), lot.at))
        return
    home.send(("counts", pending, lot.at))
    home.send(("ended", "whole", lot.at))
