"""Whoever else uses the machine's CPUs during a turn is noticed; the contender itself is not."""

from __future__ import annotations

import pytest

from uringblob_bench import system_load
from uringblob_bench.interleave import Case

pytestmark = pytest.mark.one_interpreter


@pytest.fixture
def machine(monkeypatch):
    """Clocks that the test sets: of all CPUs, of this process, and on the wall."""
    clocks = {"machine": 100.0, "own": 10.0, "wall": 0.0}
    monkeypatch.setattr(system_load, "machine_cpu_s", lambda: clocks["machine"])
    monkeypatch.setattr(system_load, "own_cpu_s", lambda: clocks["own"])
    monkeypatch.setattr(system_load.time, "perf_counter", lambda: clocks["wall"])
    monkeypatch.setattr(system_load.os, "cpu_count", lambda: 2)
    return clocks


def test_a_party_alone_has_no_neighbours(machine):
    watch = system_load.CpuWatch()
    machine.update(machine=101.5, own=11.5, wall=1.0)
    assert watch.others() == 0.0


def test_what_others_use_is_a_share_of_all_cpus(machine):
    watch = system_load.CpuWatch()
    machine.update(machine=101.5, own=10.5, wall=1.0)
    assert watch.others() == 0.5


def test_clocks_of_different_grain_make_no_share_outside_0_to_1(machine):
    watch = system_load.CpuWatch()
    machine.update(machine=100.0, own=10.1, wall=1.0)
    assert watch.others() == 0.0
    machine.update(machine=200.0)
    assert watch.others() == 1.0


def test_the_real_clocks_go_forward():
    assert system_load.own_cpu_s() > 0
    assert system_load.machine_cpu_s() >= 0
    assert 0 <= system_load.CpuWatch().others() <= 1


@pytest.mark.parametrize(
    ("shares", "warned"), [([], False), ([0.1, 0.1, 0.9], False), ([0.1, 0.5, 0.9], True)]
)
def test_a_busy_machine_is_warned_of(shares, warned, params, capfd):
    from uringblob_bench.report.terminal import Terminal

    Terminal().system_load([Case("x", params, 1, 0.0, others=shares)])
    assert ("used 50% of the CPUs" in capfd.readouterr().out) is warned
