"""Contenders take turns, fairly, and one that fails does not stop the others."""

from __future__ import annotations

import itertools
import time

import pytest

from uringblob_bench.bench import Bench, OutOfTime, Pace
from uringblob_bench.interleave import CannotRun, Entry, interleave, turn_order
from uringblob_bench.load import Load, Verb
from uringblob_bench.sample import Latency, Sample

pytestmark = pytest.mark.one_interpreter
LOAD = (Load(Verb.READ),)


class Fake:
    """A contender whose turns yield given speeds, or raise."""

    def __init__(self, name, speeds=(1.0,), prepare_error=None):
        self.name = name
        self.speeds = itertools.cycle(speeds)
        self.prepare_error = prepare_error

    def settings(self):
        return {"name": self.name}

    def prepare(self):
        if self.prepare_error is not None:
            raise self.prepare_error

    def turn(self, loads, seconds):
        speed = next(self.speeds)
        if isinstance(speed, Exception):
            raise speed
        return [Sample(int(speed * 100), 100.0, 4096, Latency.of([1 / speed])) for _ in loads]


def run(params, *contenders, rounds=4, **more):
    entries = [Entry(contender, LOAD) for contender in contenders]
    return interleave("case", params, entries, rounds=rounds, seconds=0.0, **more)


def test_two_parties_take_turns_and_begin_equally_often(params):
    assert run(params, Fake("a"), Fake("b")).order == ["a", "b", "b", "a", "b", "a", "a", "b"]


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_every_party_takes_one_turn_a_round(count):
    for order in turn_order(count, 7):
        assert sorted(order) == list(range(count))


def test_each_of_three_parties_comes_first_equally_often():
    firsts = [order[0] for order in turn_order(3, 6)]
    assert sorted(firsts) == [0, 0, 1, 1, 2, 2]


def test_medians_and_extremes_over_the_turns(params):
    case = run(params, Fake("a", [1.0, 5.0, 3.0]), rounds=3)
    spread = case.spreads("a")["frames_per_s"]
    assert (spread.median, spread.low, spread.high, spread.count) == (3.0, 1.0, 5.0, 3)


def test_a_party_that_cannot_prepare_is_named_and_the_others_go_on(params):
    case = run(params, Fake("a"), Fake("b", prepare_error=OSError("not installed")), rounds=2)
    assert case.failures == {"b": "OSError: not installed"}
    assert case.broken == ["b"]
    assert case.order == ["a", "a"]
    assert not case.has("a", "b")


def test_a_party_that_cannot_run_here_is_named_and_not_broken(params):
    case = run(params, Fake("a"), Fake("b", prepare_error=CannotRun("not installed")), rounds=2)
    assert case.failures == {"b": "not installed"}
    assert case.broken == []


def test_a_party_that_fails_in_its_second_turn_is_out_with_all_its_turns(params):
    case = run(params, Fake("a"), Fake("b", [1.0, RuntimeError("broke")]), rounds=3)
    assert case.failures == {"b": "RuntimeError: broke"}
    assert "b" not in case.samples
    assert len(case.samples["a"]) == 3


def test_after_the_deadline_no_further_round_begins(params):
    case = run(params, Fake("a"), rounds=5, deadline=time.monotonic() - 1)
    assert len(case.samples["a"]) == case.rounds == 1
    assert "after 1 of 5 rounds" in case.note


def test_a_case_is_run_once_and_kept(params, workdir):
    bench = Bench(workdir, params, Pace(1, 0.0))
    contender = Fake("a", [1.0, AssertionError("a second run")])
    assert bench.case("x", [Entry(contender, LOAD)]) is bench.case("x", [Entry(contender, LOAD)])


def test_a_used_up_budget_is_an_error_of_the_case_that_did_not_begin(params, workdir):
    bench = Bench(workdir, params, Pace(1, 0.0, deadline=time.monotonic() - 1))
    with pytest.raises(OutOfTime):
        bench.case("x", [Entry(Fake("a"), LOAD)])
