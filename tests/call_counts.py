"""Counts the calls of an operation: of Python functions, and of C functions that those call."""

from __future__ import annotations

import os
import sys

import uringblob

PACKAGE = os.path.join(os.path.dirname(uringblob.__file__), "")


async def count_calls(make, times, package=PACKAGE):
    """Await ``make()`` so many times; return the Python and the C calls of each.

    A step of a coroutine counts as a call.  Only code below ``package`` counts, so the event loop's does not.
    """
    python = c = 0

    def seen(frame, event, _argument):
        nonlocal python, c
        if frame.f_code.co_filename.startswith(package):
            python += event == "call"
            c += event == "c_call"

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        for _ in range(times):
            await make()
        counted = python / times, c / times
    finally:
        sys.setprofile(before)
    return counted
