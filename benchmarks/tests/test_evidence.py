"""What strace and the device are asked, and what is made of their answers."""

from __future__ import annotations

import shutil

import pytest

from uringblob_bench.contenders.fio import fio_version
from uringblob_bench.counts import count_commits, submitting_enters
from uringblob_bench.device import flushes
from uringblob_bench.fio_sync import fio_sync_evidence, judge

pytestmark = pytest.mark.one_interpreter


def enter(submit, wait, took=None):
    took = submit if took is None else took
    return f"77 io_uring_enter(6, {submit}, {wait}, IORING_ENTER_GETEVENTS, NULL, 0) = {took}\n"


def test_a_program_that_waits_for_its_writes_before_it_syncs_is_trusted():
    # Four writes, wait for four, one sync, wait for it.
    evidence = judge((enter(4, 0) + enter(0, 4) + enter(1, 0) + enter(0, 1)) * 3, batch=4)
    assert evidence.trusted
    assert (evidence.syncs, evidence.early_syncs) == (3, 0)
    assert "waited for its writes before each of 3 syncs" in evidence.words


def test_a_sync_submitted_beside_the_last_write_is_early():
    evidence = judge((enter(5, 0) + enter(0, 5)) * 3, batch=4)
    assert not evidence.trusted
    assert (evidence.syncs, evidence.early_syncs) == (3, 3)


def test_a_wait_for_some_of_the_writes_is_not_enough():
    evidence = judge(enter(4, 0) + enter(0, 3) + enter(1, 0), batch=4)
    assert evidence.early_syncs == 1


def test_a_partly_taken_submission_counts_what_was_taken():
    evidence = judge(enter(4, 0, took=2) + enter(2, 0) + enter(0, 4) + enter(1, 0), batch=4)
    assert evidence.trusted


def test_a_trace_without_a_sync_proves_nothing():
    assert not judge(enter(3, 0) + enter(0, 3), batch=4).trusted
    assert not judge("", batch=4).trusted


def test_fio_is_looked_at(params, workdir):
    """fio 3.33 submits its syncs beside its writes, whatever its batch options say."""
    if not fio_version() or shutil.which("strace") is None:
        pytest.skip("n/a: needs fio and strace")
    evidence = fio_sync_evidence(params, workdir, 4)
    assert evidence.known, evidence.words
    assert evidence.syncs > 0
    assert evidence.submitted > 4 * evidence.syncs


def test_enters_are_counted_between_marks():
    mark = "77 getppid() = 1\n"
    section = enter(2, 0) + enter(0, 1) + enter(1, 0)
    trace = enter(1, 0) + mark + section + mark + enter(1, 1) + mark + mark + enter(1, 1)
    assert submitting_enters(trace) == [2, 0]


def test_a_commit_is_two_submissions_and_one_flush(params, workdir, needs_uring):
    """Counts of the real store, seen from outside by strace and by the device."""
    if shutil.which("strace") is None:
        pytest.skip("n/a: strace is not installed")
    counts = count_commits(params, workdir)
    assert counts.submitting_enters is not None, counts.enters_words
    assert counts.submitting_enters <= 2
    if flushes(workdir.directory) is not None:
        assert counts.device_flushes == 1, counts.flushes_words


def test_the_device_counts_flushes_or_says_nothing(workdir):
    count = flushes(workdir.directory)
    assert count is None or count >= 0
    assert flushes("/proc") is None
