"""Completions: they are not cancelled, and resolving one is idempotent, also after an interruption."""

from __future__ import annotations

import asyncio

import pytest

from uringblob.completion import Completion


@pytest.fixture
def completion():
    loop = asyncio.new_event_loop()
    yield Completion(loop=loop)
    loop.close()


ENDS = {
    "resolve": lambda completion: completion.resolve(None),
    "set_result": lambda completion: completion.set_result(None),
    "reject": lambda completion: completion.reject(ValueError("the operation's")),
    "set_exception": lambda completion: completion.set_exception(ValueError("the operation's")),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_immediate_callbacks_run_inside_the_call_that_resolves_and_in_order(completion, end):
    resumed = []
    completion.add_immediate_callback(lambda ended: resumed.append((1, ended.done())))
    completion.add_immediate_callback(lambda ended: resumed.append((2, ended.done())))
    end(completion)
    assert resumed == [(1, True), (2, True)]
    completion.exception()


@pytest.mark.parametrize("end", [ENDS["resolve"], ENDS["reject"]], ids=["resolve", "reject"])
def test_a_reaper_that_was_interrupted_starts_over_and_runs_only_the_remaining_callbacks(completion, end):
    resumed = []

    def interrupted(_):
        resumed.append("interrupted")
        raise KeyboardInterrupt

    completion.add_immediate_callback(interrupted)
    completion.add_immediate_callback(lambda _: resumed.append("the other"))
    with pytest.raises(KeyboardInterrupt):
        end(completion)
    outcome = completion.exception()
    end(completion)
    end(completion)
    assert resumed == ["interrupted", "the other"]
    assert completion.exception() is outcome


def test_the_first_end_counts(completion):
    completion.resolve(7)
    completion.reject(ValueError("late"))
    completion.resolve(8)
    assert completion.result() == 7


def test_it_needs_no_waiter(completion):
    completion.set_result(7)
    assert completion.result() == 7


def test_it_is_not_cancelled(completion):
    assert not completion.cancel()
    assert not completion.done()
    completion.resolve(None)


@pytest.mark.parametrize("waiters", [1, 2, 5])
@pytest.mark.parametrize("nth", range(7))
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_where_there_is_no_memory_to_schedule_a_callback_every_one_is_called_all_the_same(
    monkeypatch, end, nth, waiters
):
    """asyncio drops the one and all behind it, and the future counts as done."""
    loop, called, asked = asyncio.new_event_loop(), [], []
    real = loop.call_soon

    def call_soon(*args, **options):
        asked.append(args)
        if len(asked) == nth + 1:
            raise MemoryError
        return real(*args, **options)

    completion = Completion(loop=loop)
    for number in range(waiters):
        completion.add_done_callback(lambda _, number=number: called.append(number))
    monkeypatch.setattr(loop, "call_soon", call_soon)
    end(completion)
    monkeypatch.undo()
    assert completion.done()
    loop.run_until_complete(asyncio.sleep(0))
    assert called == list(range(waiters))
    completion.exception()
    loop.close()
