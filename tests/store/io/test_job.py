"""A job runs to its end, also when its caller is cancelled."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from striking import HandlerAtCalls
from uringblob.completion import Completion
from uringblob.store.io import job as job_module
from uringblob.store.io.job import Job, Lock, join, wait_all, when_done

PATIENCE = 20  # seconds until a call that does not end fails the test


class Struck(BaseException):
    """What the tests' signal handlers raise."""


def new_completion():
    return Completion(loop=asyncio.get_running_loop())


async def test_a_job_begins_at_once_and_is_no_task():
    steps = []

    async def work():
        steps.append("begun")

    job = Job(work(), asyncio.get_running_loop())
    assert steps == ["begun"]
    assert job.done()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_job_resumes_in_the_moment_its_completion_resolves():
    gate = new_completion()

    async def work():
        return await gate + 1

    job = Job(work(), asyncio.get_running_loop())
    gate.resolve(41)
    assert job.result() == 42


async def test_two_jobs_and_a_task_may_await_the_same_completion():
    """The second awaiter was once refused: "await wasn't used with future"."""
    gate = new_completion()

    async def work():
        return await gate

    loop = asyncio.get_running_loop()
    jobs = [Job(work(), loop), Job(work(), loop)]
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    gate.resolve(7)
    assert [await job for job in jobs] == [7, 7]
    assert await task == 7


async def test_a_job_may_await_any_future():
    future = asyncio.get_running_loop().create_future()

    async def work():
        return await future

    job = Job(work(), asyncio.get_running_loop())
    future.set_result("from the loop")
    assert await job == "from the loop"


async def test_a_cancelled_joiner_waits_for_the_job():
    gate = new_completion()
    ended = []

    async def work():
        await gate
        ended.append(True)

    job = Job(work(), asyncio.get_running_loop())
    joiner = asyncio.create_task(join(job))
    await asyncio.sleep(0)
    joiner.cancel()
    await asyncio.sleep(0)
    assert not joiner.done()
    gate.resolve(None)
    with pytest.raises(asyncio.CancelledError):
        await joiner
    assert ended == [True]


async def test_what_a_job_awaits_may_be_cancelled_by_others_and_is_an_error_then():
    """A future may not hold CancelledError, and the job was not cancelled itself."""
    future = asyncio.get_running_loop().create_future()

    async def work():
        await future

    job = Job(work(), asyncio.get_running_loop())
    future.cancel()
    with pytest.raises(RuntimeError, match="a store job was cancelled"):
        await join(job)


async def test_what_is_joined_and_cancelled_itself_is_a_cancellation():
    future = asyncio.get_running_loop().create_future()
    joiner = asyncio.create_task(join(future))
    await asyncio.sleep(0)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await joiner


@pytest.mark.parametrize("well", [True, False])
async def test_when_done_resolves_without_the_jobs_error(well):
    gate = new_completion()

    async def work():
        await gate
        if not well:
            raise ValueError("the caller's own")

    job = Job(work(), asyncio.get_running_loop())
    ended = when_done(job)
    assert not ended.done()
    gate.resolve(None)
    assert await ended is None
    assert isinstance(job.exception(), ValueError) is not well


async def test_wait_all_waits_for_all_and_collects_the_errors():
    gate = new_completion()

    async def fails():
        raise ValueError("one")

    async def waits():
        await gate

    loop = asyncio.get_running_loop()
    waiting = Job(wait_all([Job(fails(), loop), Job(waits(), loop)]), loop)
    assert not waiting.done()
    gate.resolve(None)
    assert [str(error) for error in await waiting] == ["one"]


async def test_an_exception_of_a_signal_handler_ends_the_job_is_reported_and_reaches_the_loop():
    gate = new_completion()

    async def interrupted():
        await gate
        raise KeyboardInterrupt

    reported = []
    job = Job(interrupted(), asyncio.get_running_loop(), reported.append)
    with pytest.raises(KeyboardInterrupt):
        gate.resolve(None)
    with pytest.raises(RuntimeError, match="signal handler"):
        await job
    assert [type(error) for error in reported] == [KeyboardInterrupt]


JOB_CODE = {Job.__call__.__code__, Job._wait_for.__code__, Job._end.__code__}
CHAIN = 4


@pytest.mark.one_interpreter
@pytest.mark.parametrize("awaited", ["completion", "future"])
@pytest.mark.parametrize("hit", range(70))
async def test_after_a_handler_that_raises_at_any_line_of_a_step_every_waiter_is_resumed(hit, awaited):
    """The call itself included, and the jobs that wait for jobs that wait for it."""
    loop = asyncio.get_running_loop()
    gate = new_completion() if awaited == "completion" else loop.create_future()
    seen, left = [], hit
    loop.set_exception_handler(lambda loop, context: seen.append(type(context["exception"])))

    async def work(before):
        await before

    def trace(scope, event, _argument):
        nonlocal left
        if scope.f_code not in JOB_CODE:
            return None
        if event in ("call", "line"):
            left -= 1
            if left == -1:
                raise Struck
        return trace

    jobs = [Job(work(gate), loop)]
    for _ in range(CHAIN - 1):
        jobs.append(Job(work(jobs[-1]), loop))
    waiter = asyncio.ensure_future(join(jobs[-1]))
    await asyncio.sleep(0)
    loop.call_soon(gate.set_result, None)
    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(trace)
    try:
        for _ in range(30):
            await asyncio.sleep(0)
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    assert [job.done() for job in jobs] == [True] * CHAIN
    assert waiter.done()
    for each in (*jobs, waiter):
        each.exception()
    assert seen == ([Struck] if left < 0 else [])


async def test_a_job_that_cannot_be_made_has_not_begun(monkeypatch):
    """And its coroutine is closed, so Python does not warn that it was never awaited."""
    begun = []

    async def work():
        begun.append(True)

    def init(_completion, *, loop):
        raise MemoryError

    monkeypatch.setattr(Completion, "__init__", init)
    with pytest.raises(MemoryError):
        Job(work(), asyncio.get_running_loop())
    gc.collect()
    assert begun == []


async def test_a_lock_is_held_by_one_at_a_time_in_order():
    lock, gate, order, loop = Lock(), new_completion(), [], asyncio.get_running_loop()

    async def work(number):
        order.append(number)
        await (gate if not number else asyncio.ensure_future(asyncio.sleep(0)))
        order.append(number)
        if number == 2:
            raise ValueError("the holder's own")

    jobs = [Job(lock.run(work, number), loop) for number in range(2)]
    jobs += [asyncio.ensure_future(lock.run(work, number)) for number in range(2, 5)]
    await asyncio.sleep(0)
    assert order == [0]
    gate.resolve(None)
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [*[type(None)] * 2, ValueError, *[type(None)] * 2]
    assert order == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


async def test_a_waiter_that_is_cancelled_or_dropped_does_not_keep_the_lock():
    """A cancelled task got its turn with its cancellation, and nobody let go of the lock any more."""
    lock, gate, loop, worked = Lock(), new_completion(), asyncio.get_running_loop(), []

    async def wait():
        await gate

    async def work():
        worked.append(lock.locked())

    holder = Job(lock.run(wait), loop)
    waiters = [asyncio.ensure_future(lock.run(work)) for _ in range(2)]
    dropped = lock.run(work)
    dropped.send(None)
    last = asyncio.ensure_future(lock.run(work))
    await asyncio.sleep(0)
    waiters[0].cancel()
    dropped.close()
    gate.resolve(None)
    outcomes = await asyncio.wait_for(
        asyncio.gather(holder, *waiters, last, return_exceptions=True), PATIENCE
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), asyncio.CancelledError, *[type(None)] * 2]
    assert worked == [True, True]
    assert not lock.locked()


@pytest.mark.untraced("it has a profiler of its own")
@pytest.mark.parametrize("others", [0, 1], ids=["alone", "with one that waits"])
async def test_a_handler_that_raises_anywhere_does_not_keep_the_lock(others):
    """``async with`` kept it, where the handler ran before the first line of ``__aexit__``."""
    number, struck = 0, True
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    while struck:
        lock, gate = Lock(), new_completion()

        async def wait(gate=gate):
            await gate

        async def work():
            pass

        async def whole(lock=lock, wait=wait, number=number):
            handler = HandlerAtCalls({job_module.__file__}, number, Struck)
            handler.start()
            try:
                await lock.run(wait)
            except Struck:
                pass
            finally:
                handler.stop()
            return handler.struck

        holder = asyncio.ensure_future(whole())
        await asyncio.sleep(0)
        waiting = [asyncio.ensure_future(lock.run(work)) for _ in range(others)]
        await asyncio.sleep(0)
        gate.resolve(None)
        struck = await asyncio.wait_for(holder, PATIENCE)
        ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), PATIENCE)
        assert all(outcome is None or isinstance(outcome, Struck) for outcome in ended)
        assert not lock.locked(), struck
        await asyncio.wait_for(lock.run(work), PATIENCE)
        number += 1
    assert number >= 3
