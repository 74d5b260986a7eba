"""A call of the synchronous store, interrupted between any two steps; its thread is played by the test."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading

import pytest

from uringblob.sync.call import LoopCall, PlainCall

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


class Struck(BaseException):
    """What a signal handler raises."""


async def nothing():
    """Never begun."""


def test_a_handlers_exception_comes_first_and_has_the_calls_own_as_its_cause():
    call = LoopCall(nothing)
    refusal = ValueError("the store's")
    submissions = []

    def submit(submitted):
        submissions.append(submitted)
        if len(submissions) == 1:
            raise Struck("the handler's")
        submitted.reject(refusal)

    with pytest.raises(Struck, match="the handler's") as raised:
        call.wait(submit)
    assert submissions == [call, call], "an interrupted caller submits again: the store's thread decides"
    assert raised.value.__cause__ is refusal


def test_a_cause_that_the_handler_gave_stays():
    call = LoopCall(nothing)
    own = KeyError("the handler's own")

    def submit(submitted):
        submitted.reject(ValueError("the store's"))
        raise Struck from own

    with pytest.raises(Struck) as raised:
        call.wait(submit)
    assert raised.value.__cause__ is own


@pytest.mark.untraced("a tracer takes the second signal")
def test_of_two_signals_pending_at_once_neither_ends_the_wait_early():
    """Python runs the second handler in the first one's except clause, or at the jump behind it.

    With one ``try`` the call returned while it ran, on CPython 3.10, 3.11 and 3.13.
    """
    submissions, returned = [], threading.Event()

    def handler(_number, _frame):
        raise Struck

    call = LoopCall(nothing)
    main = threading.get_ident()

    def store_thread():
        while not submissions:
            os.sched_yield()
        for number in SIGNALS:
            signal.pthread_kill(main, number)
        while len(submissions) < 2 and not returned.is_set():
            os.sched_yield()
        call.notify()

    before = [signal.signal(number, handler) for number in SIGNALS]
    thread = threading.Thread(target=store_thread)
    thread.start()
    try:
        with pytest.raises(Struck):
            call.wait(submissions.append)
        assert call.ended
    finally:
        returned.set()
        thread.join()
        for number, old in zip(SIGNALS, before, strict=True):
            signal.signal(number, old)


def test_a_call_is_rejected_once():
    call = LoopCall(nothing)
    first = ValueError("first")
    call.reject(first)
    call.reject(ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        call.wait(lambda submitted: None)


def test_slow_progress_is_called_with_the_newest_reports_and_the_last(monkeypatch):
    """What is queued is bounded: a verification of a million blobs queued a million reports."""
    monkeypatch.setattr("uringblob.sync.call.PROGRESS_QUEUED_MAX", 3)
    seen = []
    call = LoopCall(nothing, progress=lambda done, total: seen.append((done, total)))

    def submit(submitted):
        for done in range(1, 1001):
            submitted.report_progress(done, 1000)
            assert len(submitted._reports) <= 3
        submitted.reject(None)

    call.wait(submit)
    assert seen == [(998, 1000), (999, 1000), (1000, 1000)]


def test_the_end_may_be_notified_any_number_of_times():
    """Whether the caller has resumed or not."""
    call = LoopCall(nothing)

    def submit(submitted):
        for _ in range(3):
            submitted.notify()

    assert call.wait(submit) is None
    call.notify()


@pytest.mark.untraced("a tracer needs the same stack")
def test_a_call_for_which_the_stack_has_no_room_is_not_submitted():
    """Nor is its caller left waiting for it."""
    limit = sys.getrecursionlimit()
    submissions = []

    def call_at(depth):
        if depth:
            call_at(depth - 1)
        else:
            LoopCall(nothing).wait(submissions.append)

    with pytest.raises(RecursionError):
        call_at(limit - len(inspect.stack(0)) - 10)
    assert submissions == []


# ---- a call that may need no task ------------------------------------------------------------------


class OneTurn:
    """A loop that only makes tasks, and notes them."""

    def __init__(self):
        self.made = []

    def create_task(self, running):
        self.made.append(running)
        running.close()


@pytest.fixture
def loop():
    return OneTurn()


def test_a_plain_call_that_begins_needs_no_task_and_ends_once(loop):
    ends, done, seen = [], [], []

    def start(argument, end, *, alone):
        seen.append((argument, alone))
        ends.append(end)
        return True

    call = PlainCall(start, nothing, "argument")
    call.alone = True
    call.begin(loop, done.append)
    assert (seen, call.begun, call.task, done) == ([("argument", True)], True, None, [])
    failure = ValueError("the store's")
    ends[0](failure)
    call.notify()
    ends[0](None)  # a reaper that a signal handler interrupted ends it again
    assert done == [call]
    assert loop.made == []
    with pytest.raises(ValueError, match="the store's"):
        call.wait(lambda submitted: None)


def test_a_plain_call_that_cannot_begin_is_run_as_a_task(loop):
    async def function(argument):
        seen.append(argument)

    seen = []
    call = PlainCall(lambda *_, alone: False, function, "argument")
    call.begin(loop, lambda ended: None)
    assert len(loop.made) == 1
    assert not call.begun, "an interrupted caller may still have it not begin"


def test_an_error_of_its_beginning_is_the_callers(loop):
    def start(*_, alone):
        raise MemoryError("for its slots")

    call = PlainCall(start, nothing)
    call.begin(loop, LoopCall.notify)
    assert loop.made == []
    with pytest.raises(MemoryError, match="for its slots"):
        call.wait(lambda submitted: None)
