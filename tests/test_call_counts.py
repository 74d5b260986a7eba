"""The helper that counts calls counts each of them, and puts the profile function back."""

from __future__ import annotations

import sys

import pytest

from call_counts import count_calls


def helper(text):
    return len(text)


async def operation():
    helper("a")
    helper("b")


async def test_calls_are_counted_for_each_time():
    before = sys.getprofile()
    assert await count_calls(operation, 5, package=__file__) == (3, 2)
    assert sys.getprofile() is before


async def test_code_of_others_does_not_count():
    assert await count_calls(operation, 5) == (0, 0)


async def test_an_error_ends_the_counting():
    async def broken():
        raise LookupError

    before = sys.getprofile()
    with pytest.raises(LookupError):
        await count_calls(broken, 1)
    assert sys.getprofile() is before
