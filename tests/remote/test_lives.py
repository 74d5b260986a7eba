"""Lives of a store in a bucket: random ones, each step of fixed scripts, and planted bugs that they find."""

from __future__ import annotations

import gc
import itertools
import logging
import warnings

import pytest

import seeds
from remote import lives, steps
from remote.planted import PLANTED

pytestmark = pytest.mark.one_interpreter

LIVES = 40
RATES = (0.05, 0.15, 0.3)
#: Of all steps one in so many is taken in a run, others in the next one's; ``make torture`` takes all.
SHARE = 5


@pytest.fixture(autouse=True)
def quiet():
    """Failures in the background are what is provoked here."""
    logger = logging.getLogger("uringblob")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def test_random_lives():
    fenced = unknown = 0
    for seed in itertools.count(seeds.number()):
        count = seed - seeds.number()
        if count >= LIVES and fenced and unknown:
            break
        assert count < 10 * LIVES, f"{fenced} writers were fenced, and {unknown} outcomes unknown"
        try:
            life = lives.Life(seed, RATES[seed % 3]).run()
        except BaseException as error:
            raise AssertionError(f"replay: lives.Life({seed}, {RATES[seed % 3]}).run()") from error
        fenced += sum(run.fenced for run in life.runs)
        unknown += sum(op.outcome == lives.UNKNOWN for run in life.runs for op in run.ops)


@pytest.mark.parametrize("seed", [814753])
def test_lives_that_once_failed(seed):
    """A map that ``head`` names was deleted: the answer was lost, and ``head`` changed again since."""
    lives.Life(seed, RATES[seed % 3]).run()


def test_every_step_of_the_scripts():
    """One in :data:`SHARE`, another share for each commit."""
    done = 0
    for name, step in itertools.islice(steps.every_step(), seeds.number() % SHARE, None, SHARE):
        try:
            step()
        except BaseException as error:
            raise AssertionError(name) from error
        done += 1
    assert done > 150


@pytest.mark.parametrize("step", list(steps.alone()), ids=lambda step: step[0])
def test_scripts_of_one_step(step):
    step[1]()


def test_the_scripts_make_as_many_requests_as_are_struck():
    assert steps.requests_of(steps.as_writer) <= steps.WRITER_REQUESTS
    assert steps.requests_of(steps.as_reader) <= steps.READER_REQUESTS


def random_lives():
    """Yield lives in the shape of steps."""
    for seed in range(60):
        yield f"life {seed}", lives.Life(seed, RATES[seed % 3]).run


def finds(bug, step):
    """Whether ``step`` fails with the bug."""
    try:
        with bug():
            step()
    except (Exception, pytest.fail.Exception):
        return True
    return False


@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # its lease was not even begun to be kept
        found = any(finds(bug, step) for _, step in (PLANTED[bug] or random_lives)())
        gc.collect()  # what the step that failed left open: no step is referred to any more
    assert found
