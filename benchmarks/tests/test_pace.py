"""The budget is shared among the turns, and the command line is read."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from uringblob_bench import names
from uringblob_bench.adhoc import WORKLOADS
from uringblob_bench.contenders.catalogue import CONTENDERS
from uringblob_bench.contenders.ring_sync import STRATEGIES
from uringblob_bench.measures import MEASURES
from uringblob_bench.measures.scale import growth
from uringblob_bench.media import MEMORY_FILE_BYTES
from uringblob_bench.options import (
    FULL_BUDGET_S,
    QUICK_BUDGET_S,
    add_arguments,
    contender_names,
    media_of,
    numbers,
    size,
)
from uringblob_bench.pace import pace_of, params_of
from uringblob_bench.running import chosen

pytestmark = pytest.mark.one_interpreter


def parse(*argv):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(argv)


def expected_seconds(args):
    steps = chosen(args)
    pace = pace_of(args, steps)
    turns = sum(step.turns for step in steps if hasattr(step, "number")) * len(media_of(args))
    measures = turns * pace.rounds * pace.seconds
    sweeps = sum(step.turns for step in steps if not hasattr(step, "number"))
    return measures + sweeps * pace.sweep_rounds * pace.sweep_seconds


@pytest.mark.parametrize(
    ("argv", "budget"),
    [
        ([], 2 * FULL_BUDGET_S),
        (["--media", "memory"], FULL_BUDGET_S),
        (["--quick"], QUICK_BUDGET_S),
        (["--budget", "1200"], 1200),
    ],
)
def test_turns_fit_the_budget(argv, budget):
    assert expected_seconds(parse(*argv)) < budget


def test_a_larger_budget_means_longer_turns_and_not_more_of_them():
    short, long = (pace_of(parse("--budget", budget), chosen(parse())) for budget in ("1400", "2800"))
    assert long.seconds > short.seconds
    assert long.rounds == short.rounds


def test_only_what_is_named_is_run():
    assert [step.name for step in chosen(parse("--measure", "4"))] == [MEASURES[4].name]
    assert [step.name for step in chosen(parse("--sweep", "buffers"))] == ["buffers"]
    assert len(chosen(parse("--no-sweeps"))) == len(MEASURES)


def test_the_setting_is_the_command_lines():
    params = params_of(
        parse("--page-size", "64k", "--file-size", "2MiB", "--no-register", "--no-huge", "--no-verify")
    )
    assert (params.page_size, params.file_bytes, params.frames, params.live) == (65536, 2 << 20, 32, 12)
    assert (params.registered, params.huge, params.verify) == (False, False, False)


def test_files_in_memory_are_smaller_unless_their_size_is_named():
    assert params_of(parse(), "memory").file_bytes == MEMORY_FILE_BYTES < params_of(parse()).file_bytes
    assert params_of(parse("--file-size", "2MiB"), "memory").file_bytes == 2 << 20


@pytest.mark.parametrize(
    ("argv", "media"),
    [
        ([], ["directory", "memory"]),
        (["--quick"], ["directory"]),
        (["--workload", "read"], ["directory"]),
        (["--quick", "--media", "memory,directory"], ["directory", "memory"]),
    ],
)
def test_measures_run_on_both_media_unless_it_is_to_be_quick(argv, media):
    assert media_of(parse(*argv)) == media


@pytest.mark.parametrize(
    ("text", "value"), [("4096", 4096), ("512k", 524288), ("1.5MiB", 3 << 19), ("2GB", 2 << 30)]
)
def test_sizes(text, value):
    assert size(text) == value


@pytest.mark.parametrize("text", ["", "k", "12q", "many"])
def test_what_is_no_size(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is no size"):
        size(text)


def test_the_names_of_the_command_line_are_those_of_what_there_is():
    assert list(names.CONTENDER_NAMES) == list(CONTENDERS)
    assert list(names.WORKLOADS) == list(WORKLOADS)
    assert list(names.SYNCS) == list(STRATEGIES)
    assert set(contender_names(names.DEFAULT_CONTENDERS)) <= set(CONTENDERS)


def test_help_loads_no_peer_and_nothing_of_the_extra():
    """The whole command line is made for `uringblob ls` too."""
    code = (
        "import sys, argparse; from uringblob_bench.options import add_arguments;"
        "add_arguments(argparse.ArgumentParser());"
        "print([name for name in sys.modules if 'bench.contenders' in name or name in ('rich', 'matplotlib')])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_numbers_and_ranges():
    assert numbers("1,3,9-11") == [1, 3, 9, 10, 11]
    with pytest.raises(argparse.ArgumentTypeError):
        numbers("one")


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_growth_is_the_exponent(power):
    assert growth([(blobs, 3 * blobs**power) for blobs in (1000, 10_000, 1_000_000)]) == pytest.approx(power)
