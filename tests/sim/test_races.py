"""Commits on condition race each other, beside power cuts and a full disk."""

from __future__ import annotations

import collections

import pytest

from sim.races import race, race_on_a_full_disk

pytestmark = pytest.mark.one_interpreter


def test_each_value_is_counted_once_and_each_name_created_once_whatever_a_power_cut_leaves():
    met = sum((race(seed) for seed in range(40)), collections.Counter())
    assert min(met["raised"], met["created"], met["condition"], met["disk images"]) > 100, met


def test_a_member_that_finds_no_room_makes_nobody_elses_condition_fail():
    met = sum((race_on_a_full_disk(seed) for seed in range(40)), collections.Counter())
    assert met["room"] > 10, met
