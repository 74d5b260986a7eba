"""The n-th request of a real engine fails, for every n, once and from then on (rows 5 and 6).

On both real engines and a real file.  The call raises, the store goes on or is poisoned as the
contract says, and the store reopens to what was acknowledged.

Found here: the linked fdatasync of a batch that failed with ECANCELED, which a file system may
answer, was taken for one that its chain had cancelled, sent again, and the second one believed.
"""

from __future__ import annotations

import errno
import itertools

import pytest

import seeds
from faults.disk import FaultyDisk
from faults.life import live_with, make_template, make_unclean
from sim.rig import FAULTS, NO_ROOM, Failing
from uringblob import EngineUnavailable, StorePoisoned

pytestmark = pytest.mark.one_interpreter

EVERY = pytest.mark.parametrize(
    ("name", "forever"),
    list(itertools.product(FAULTS, (False, True))),
    ids=lambda value: {0: "once", 1: "on"}.get(value, value),
)


@pytest.fixture
def template(quick_dir):
    path = str(quick_dir / "template")
    make_template(path)
    return path


@pytest.fixture
def disk_template(disk_dir):
    path = str(disk_dir / "template")
    make_template(path)
    return path


@pytest.fixture
def unclean(quick_dir):
    path = str(quick_dir / "unclean")
    make_unclean(path)
    return path


async def strike(template, store_path, engine, name, index, *, forever, kinds=None, opening=False):
    """Live with one fault; returns the life, or ``None`` if it made fewer requests than that."""
    options = {} if kinds is None else {"kinds": kinds}
    failing = Failing(index, FAULTS[name], forever=forever, **options)
    disk = FaultyDisk(index)
    try:
        life = await live_with(
            store_path, template, engine, disk, failing, opening=opening, deep=index % 3 == 0
        )
        life.struck = failing.struck
        life.syncs_since_failure = disk.syncs_since_failure
        life.syncs_failed = disk.syncs_failed
        if failing.struck:
            (check_opening if opening else check_outcome)(name, failing, life)
    except Exception as error:
        raise AssertionError(
            f"{error!r}\nreplay: engine={engine} fault={name!r} index={index} {forever=} {kinds=} {opening=}"
        ) from error
    return life if failing.struck else None


#: What the store does for itself: nobody is there to be told if it fails after the last call.
BEHIND_A_CALL = ("linking a log segment", "compaction", "switching the log", "writing a superblock")


def check_outcome(name, failing, life):
    """What API.md says of a store after these faults."""
    kinds = set(failing.struck)
    if life.syncs_failed:
        assert life.poisoned, "a failed fsync, and the store goes on"
        return
    if failing.forever:
        return
    if kinds in ({"read"}, {"grow"}):
        assert not life.poisoned
    if name.startswith(("short", "all but", "one", "EINTR", "EAGAIN", "ECANCELED")):
        assert not life.errors, f"{name} once is no error: {life.errors}"
    if name in NO_ROOM and "superblock" not in life.poisoned:
        assert not life.poisoned
        assert all(error.applied is False for error in life.errors), life.errors
    if not life.errors and not any(words in life.poisoned for words in BEHIND_A_CALL):
        assert not life.poisoned


def check_opening(name, failing, life):
    """A fault while opening is an error of the opening, or as if nothing had happened."""
    for error in life.errors:
        named = error.errno if not isinstance(error, EngineUnavailable) else FAULTS[name].errno
        assert named == (FAULTS[name].errno or errno.EIO)
    if life.errors:
        assert life.store is None


@pytest.fixture
def engines(uring_missing):
    return ["pread"] if uring_missing else ["io_uring", "pread"]


async def sweep(template, path, engines, name, *, forever, opening=False):
    """The engines take turns: each meets every request's failure, once on one commit and from then on on the next.

    Returns the first index at which none of them made a request.
    """
    beyond = 0
    for index in itertools.count():
        engine = engines[(index + forever + seeds.number()) % len(engines)]
        struck = await strike(template, path, engine, name, index, forever=forever, opening=opening)
        beyond = 0 if struck else beyond + 1
        if beyond == len(engines):
            return index + 1 - beyond
    raise AssertionError


@EVERY
async def test_in_a_life(template, quick_path, engines, name, forever):
    # How many it is depends on which calls share a group.
    assert await sweep(template, quick_path, engines, name, forever=forever) > 20


@EVERY
async def test_while_opening(unclean, quick_path, engines, name, forever):
    assert await sweep(unclean, quick_path, engines, name, forever=forever, opening=True) > 3


@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EDQUOT", "EINTR", "EAGAIN", "ECANCELED"])
async def test_a_failed_fsync_poisons_and_a_later_success_is_not_believed(
    disk_template, store_path, engine, name
):
    """Whatever the errno; nobody even asks for another fsync, and nothing is acknowledged on one."""
    for index in itertools.count():
        life = await strike(disk_template, store_path, engine, name, index, forever=False, kinds=("sync",))
        if life is None:
            break
        assert life.syncs_since_failure <= 1  # one may have been under way
        assert life.errors or life.poisoned  # a flush in the background has no caller to tell
        for error in life.errors:
            first = error.__cause__ if isinstance(error, StorePoisoned) else error
            assert first.errno == getattr(errno, name)
            assert first.applied is None
    assert index > 5
