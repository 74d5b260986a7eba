"""Row 22, backups: power cuts, failed requests and bad frames at each step; no mixture is taken for a backup."""

from __future__ import annotations

import itertools

import pytest

from sim.backups import (
    EARLIER,
    PAGE,
    WANTED,
    Run,
    check,
    cut_everywhere,
    fail_everywhere,
    image_of,
    small_steps,
)
from sim.faulty import FAULTS, Failing
from sim.judging import contents
from sim.lives import frame, guid
from uringblob import INCOMPLETE
from uringblob.api import backup

pytestmark = pytest.mark.one_interpreter

#: What a target may hold when a backup begins.
BEGINNINGS = {
    "nothing": {},
    "an earlier backup": EARLIER,
    "an interrupted backup": {guid(1): frame(1), guid(7): frame(7), INCOMPLETE: bytes(PAGE)},
}
TARGETS = pytest.mark.parametrize("to_path", [True, False], ids=["path", "open store"])


@TARGETS
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_the_power_is_cut_at_every_step(beginning, to_path, count_row):
    figures = cut_everywhere(BEGINNINGS[beginning], to_path=to_path)
    assert figures["complete"] > 0
    assert (figures["earlier"] > 0) == (INCOMPLETE not in BEGINNINGS[beginning])
    if to_path and beginning == "an earlier backup":
        assert figures["incomplete"] == 0
    else:
        assert figures["incomplete"] > 0
    count_row(22, **figures)


@TARGETS
@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "short by 512"])
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_each_request_to_the_target_fails_in_turn(beginning, fault, to_path, count_row):
    kinds = ("write", "grow") if fault == "ENOSPC" else ("write", "grow", "sync", "read")
    figures = fail_everywhere(
        BEGINNINGS[beginning], lambda index: Failing(index, FAULTS[fault], kinds=kinds), to_path=to_path
    )
    assert figures["failed requests"] > 5
    count_row(22, **figures)


@TARGETS
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_each_frame_of_the_source_is_bad_in_turn(beginning, to_path, count_row):
    earlier = BEGINNINGS[beginning]
    for name in WANTED:
        with small_steps():
            run = Run(image_of(earlier), to_path=to_path, corrupt=[name]).run()
            run.disk.restart()
            found, notes = contents(run.disk.live)
        if earlier.get(name) == WANTED[name]:
            assert run.report.ok, "what the target has need not be read"
            check(found, earlier, to_path=to_path, done=True)
            continue
        assert [guid for guid, _ in run.report.bad] == [name]
        if to_path and earlier is EARLIER:
            assert found == EARLIER, "an earlier backup gave way to an incomplete one"
            assert run.report.copied == run.report.deleted == run.report.bytes == 0
        else:
            rest = {other: content for other, content in found.items() if other not in (name, INCOMPLETE)}
            assert rest == {other: content for other, content in WANTED.items() if other != name}
            assert found.get(name) == earlier.get(name), "what is there of a bad blob stays"
            assert INCOMPLETE in found
        count_row(22, **{"bad frames": 1})


# --- the rig finds what it is for -----------------------------------------------------------------


_run = backup._Backup.run


def _without_marker(patch):
    """The target does not say that it is incomplete."""

    async def run(self):
        commit = self._target.commit

        async def unmarked(writes=(), deletes=()):
            kept = [write for write in writes if write[0] != INCOMPLETE]
            if kept or deletes:
                await commit(kept, deletes)

        self._target.commit = unmarked
        return await _run(self)

    patch.setattr(backup._Backup, "run", run)


def _marker_goes_first(patch):
    """The target says that it is complete before what it has beyond is deleted."""
    finish = backup._Backup._finish

    async def early(self, beyond):
        if not self._replaces:
            await self._target.commit(deletes=[INCOMPLETE])
        await finish(self, beyond)

    patch.setattr(backup._Backup, "_finish", early)


def _steps_are_durable(patch):
    """A file with an earlier backup is changed step by step."""

    async def run(self):
        if self._replaces:
            self._target.write_blobs = self._target.commit
        return await _run(self)

    patch.setattr(backup._Backup, "run", run)


def _closes_with_a_flush(patch):
    """A backup into a file that failed leaves what it had written."""
    from uringblob.store.async_store import AsyncFileBlobStore

    aclose = AsyncFileBlobStore.aclose
    patch.setattr(AsyncFileBlobStore, "aclose", lambda self, flush=True: aclose(self))


def _no_last_flush(patch):
    """A backup returns before it is durable."""

    async def finish(self, beyond):
        for name in beyond:
            await self._target.delete_blob(name)

    patch.setattr(backup._Backup, "_finish", finish)


@pytest.mark.parametrize(
    "plant", [_without_marker, _marker_goes_first, _steps_are_durable, _closes_with_a_flush, _no_last_flush]
)
def test_a_planted_bug_is_found(plant, monkeypatch):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        for beginning, to_path in itertools.product(BEGINNINGS.values(), (True, False)):
            cut_everywhere(beginning, to_path=to_path, resume_every=10_000)
            for fault in ("ENOSPC", "EIO"):
                fail_everywhere(
                    beginning, lambda index, fault=fault: Failing(index, FAULTS[fault]), to_path=to_path
                )
