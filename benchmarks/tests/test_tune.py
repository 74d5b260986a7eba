"""Comparisons of values of one constant of the store."""

from __future__ import annotations

import argparse

import pytest

from uringblob import tuning
from uringblob_bench.contenders.tuned import Tuned
from uringblob_bench.tune import Tune, tune_of


class Spy:
    name, durability, params, workdir = "spy", "", None, None

    def __init__(self):
        self.seen = []

    def settings(self):
        return {"engine": "spy"}

    def turn(self, _loads, _seconds):
        self.seen.append(tuning.PREAD_THREADS_MAX)
        return []


def test_a_turn_has_its_value_and_the_next_one_has_not():
    spy, before = Spy(), tuning.PREAD_THREADS_MAX
    Tuned(spy, "PREAD_THREADS_MAX", 3).turn((), 0.0)
    assert spy.seen == [3]
    assert before == tuning.PREAD_THREADS_MAX


def test_name_and_settings_say_the_value():
    tuned = Tuned(Spy(), "PREAD_THREADS_MAX", 3)
    assert tuned.name == "spy, PREAD_THREADS_MAX=3"
    assert tuned.settings() == {"engine": "spy", "PREAD_THREADS_MAX": 3}


@pytest.mark.parametrize("constant", tuning.NAMES)
def test_every_constant_can_be_named(constant):
    value = getattr(tuning, constant)
    assert tune_of(f"{constant}={value},{value}") == Tune(constant, (value, value))


@pytest.mark.parametrize("text", ["NOTHING=1", "PREAD_THREADS_MAX=many", "PREAD_THREADS_MAX"])
def test_what_cannot_be_tuned_is_named(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"PREAD_THREADS_MAX|no constant"):
        tune_of(text)
