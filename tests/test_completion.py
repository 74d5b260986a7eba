"""Completions: nobody breaks them, and whoever resolves one twice, or was struck, resumes the rest."""

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
    "finish": lambda completion: completion.resolve(None),
    "set_result": lambda completion: completion.set_result(None),
    "fail": lambda completion: completion.reject(ValueError("told")),
    "set_exception": lambda completion: completion.set_exception(ValueError("told")),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_whoever_asked_is_resumed_in_that_moment_and_in_order(completion, end):
    resumed = []
    completion.add_immediate_callback(lambda ended: resumed.append((1, ended.done())))
    completion.add_immediate_callback(lambda ended: resumed.append((2, ended.done())))
    end(completion)
    assert resumed == [(1, True), (2, True)]
    completion.exception()


@pytest.mark.parametrize("end", [ENDS["finish"], ENDS["fail"]], ids=["finish", "fail"])
def test_a_reaper_that_was_struck_starts_over_and_resumes_only_the_rest(completion, end):
    resumed = []

    def struck(_):
        resumed.append("struck")
        raise KeyboardInterrupt

    completion.add_immediate_callback(struck)
    completion.add_immediate_callback(lambda _: resumed.append("the other"))
    with pytest.raises(KeyboardInterrupt):
        end(completion)
    outcome = completion.exception()
    end(completion)
    end(completion)
    assert resumed == ["struck", "the other"]
    assert completion.exception() is outcome


def test_the_first_end_counts(completion):
    completion.resolve(7)
    completion.reject(ValueError("late"))
    completion.resolve(8)
    assert completion.result() == 7


def test_nobody_needs_to_wait(completion):
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
