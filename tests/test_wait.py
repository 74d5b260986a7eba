"""A wait resumes its task where the operation is reaped, once, and never before the operation has ended."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import sys
import weakref

import pytest

from uringblob.completion import set_bare_result
from uringblob.wait import Wait

NUMBER = contextvars.ContextVar("NUMBER", default=0)


class C:
    """Tasks of the C module, asyncio's default."""

    @staticmethod
    def start(loop, coroutine):
        return asyncio.Task(coroutine, loop=loop)


class Python:
    """Tasks in Python: those of debuggers, and of interpreters without the C module."""

    @staticmethod
    def start(loop, coroutine):
        return asyncio.tasks._PyTask(coroutine, loop=loop)


KINDS = [C, Python]
if sys.version_info >= (3, 12):

    class Eager:
        """Tasks whose first step is made while they are created, inside another task's step."""

        @staticmethod
        def start(loop, coroutine):
            return asyncio.Task(coroutine, loop=loop, eager_start=True)

    KINDS.append(Eager)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def start(request):
    """Start a task of that kind."""
    return lambda coroutine: request.param.start(asyncio.get_running_loop(), coroutine)


@pytest.fixture
async def wait():
    return Wait(loop=asyncio.get_running_loop())


async def ending(wait, seen):
    """Await ``wait``; note what comes of it."""
    try:
        await wait
    except BaseException as error:
        seen.append(error)
        raise
    seen.append(wait.got)


async def outside(function, *args):
    """Call ``function`` from the loop, in no task's step; return what had happened when it returned."""
    called = asyncio.get_running_loop().create_future()

    def call():
        called.set_result(function(*args))

    asyncio.get_running_loop().call_soon(call)
    return await called


async def test_the_task_is_resumed_inside_the_call_that_ends_the_operation(start, wait):
    seen = []
    task = start(ending(wait, seen))
    await asyncio.sleep(0)
    assert seen == []

    def reap():
        wait.complete(4096)
        return list(seen)

    assert await outside(reap) == [4096]
    await task


async def test_inside_another_tasks_step_it_is_resumed_by_the_loop(start, wait):
    """asyncio refuses to enter a task while another one runs."""
    seen = []
    task = start(ending(wait, seen))
    await asyncio.sleep(0)
    wait.complete(4096)
    assert wait.done()
    assert seen == []
    await task
    assert seen == [4096]


async def test_a_chain_of_waits_is_resumed_one_inside_the_other(start):
    """A task that goes on to its next operation is there when that is reaped, without an iteration between."""
    loop, seen = asyncio.get_running_loop(), []
    waits = [Wait(loop=loop) for _ in range(5)]

    async def chain():
        for wait in waits:
            await ending(wait, seen)

    task = start(chain())
    await asyncio.sleep(0)

    def reap():
        for number, wait in enumerate(waits):
            wait.complete(number)
        return list(seen)

    assert await outside(reap) == [0, 1, 2, 3, 4]
    await task


async def test_a_task_that_another_one_resumes_is_entered_by_the_loop(start):
    """What ends inside a resumed task's step ends inside a task's step, too."""
    loop, seen = asyncio.get_running_loop(), []
    first, second = Wait(loop=loop), Wait(loop=loop)

    async def ends_another():
        await first
        second.complete(2)
        seen.append("went on")

    tasks = [start(ends_another()), start(ending(second, seen))]
    await asyncio.sleep(0)
    assert await outside(lambda: first.complete(1) or list(seen)) == ["went on"]
    await asyncio.gather(*tasks)
    assert seen == ["went on", 2]


async def test_one_that_has_ended_is_not_waited_for(start, wait):
    seen, turns = [], []
    wait.complete(7)
    asyncio.get_running_loop().call_soon(turns.append, 1)
    await ending(wait, seen)
    assert (seen, turns) == ([7], [])
    await start(ending(wait, seen))
    assert seen == [7, 7]


async def test_its_first_end_counts(start, wait):
    wait.complete(4096, mismatch=1)
    wait.complete(-errno.EIO)
    wait.resolve()
    wait.reject(ValueError("late"))
    await wait
    assert (wait.got, wait.mismatch, wait.exception()) == (4096, 1, None)


async def test_ended_twice_it_resumes_its_task_once(start, wait):
    """A reaping that a signal handler interrupted begins again."""
    seen = []
    task = start(ending(wait, seen))
    await asyncio.sleep(0)
    await outside(lambda: (wait.complete(1), wait.complete(2)))
    await task
    assert seen == [1]


@pytest.mark.parametrize("inside_a_task", [False, True])
@pytest.mark.parametrize("ended", [False, True])
async def test_a_task_that_was_not_resumed_is_resumed_by_the_next_end(start, wait, inside_a_task, ended):
    """The first one was interrupted when it had the task's wake-up, before or after the future was done."""
    seen = []
    task = start(ending(wait, seen))
    await asyncio.sleep(0)
    [wait._wakeup] = wait._callbacks
    wait.remove_done_callback(wait._wakeup[0])
    if ended:
        wait.got = 5
        set_bare_result(wait, None)
    again = 6 if ended else 5
    if inside_a_task:
        wait.complete(again)
    else:
        assert await outside(lambda: wait.complete(again) or list(seen)) == [5]
    await task
    assert seen == [5]


@pytest.mark.parametrize("when", ["before", "while"])
async def test_an_error_is_raised_to_the_task(start, wait, when):
    error, seen = ValueError("the engine's own fault"), []
    if when == "before":
        wait.reject(error)
    task = start(ending(wait, seen))
    await asyncio.sleep(0)
    if when == "while":
        await outside(wait.reject, error)
    with pytest.raises(ValueError, match="own fault") as raised:
        await task
    assert raised.value is error
    assert seen == [error]


async def test_a_cancelled_task_gets_its_cancellation_when_the_operation_has_ended(start, wait):
    seen = []
    task = start(ending(wait, seen))
    await asyncio.sleep(0)
    task.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert seen == []
    assert not task.done()
    await outside(wait.complete, 4096)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(seen[0], asyncio.CancelledError)
    assert wait.got == 4096


async def test_a_cancelled_task_whose_operation_failed_is_cancelled(start, wait):
    """As with a future: the error is its operation's, and the cancellation its caller's."""
    task = start(ending(wait, []))
    await asyncio.sleep(0)
    task.cancel()
    await outside(wait.reject, ValueError("no"))
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_refuses_to_be_cancelled(wait):
    assert wait.cancel() is False
    assert wait.cancel("why") is False
    assert not wait.done()


async def test_the_operations_memory_is_let_go_of_before_the_task_goes_on(start, wait):
    class Memory:
        pass

    async def looking():
        await wait
        return alive()

    wait.keep = memory = Memory()
    alive = weakref.ref(memory)
    del memory
    task = start(looking())
    await asyncio.sleep(0)
    assert alive() is not None
    await outside(wait.complete, 0)
    assert await task is None


async def test_the_task_goes_on_in_its_own_context(start, wait):
    async def number():
        NUMBER.set(7)
        await wait
        return NUMBER.get()

    NUMBER.set(3)
    task = start(number())
    await asyncio.sleep(0)
    await outside(wait.complete, 0)
    assert await task == 7
    assert NUMBER.get() == 3


async def test_a_task_that_ends_in_the_reaping_resumes_who_awaits_it(start, wait):
    seen = []
    inner = start(ending(wait, seen))

    async def outer():
        await inner
        return list(seen)

    task = start(outer())
    await asyncio.sleep(0)
    await outside(wait.complete, 1)
    assert await task == [1]


async def test_what_the_task_raises_is_the_tasks_and_not_the_reapers(start, wait):
    async def failing():
        await wait
        raise RuntimeError("the caller's own")

    task = start(failing())
    await asyncio.sleep(0)
    await outside(wait.complete, 1)
    with pytest.raises(RuntimeError, match="the caller's own"):
        await task


async def test_only_an_error_that_nobody_awaits_is_reported_by_the_loop():
    """It is a fault of this library, and its task was destroyed: as any future's, it is not lost."""
    loop, reported = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _loop, context: reported.append(context["exception"]))
    ended, failed, error = Wait(loop=loop), Wait(loop=loop), ValueError("nobody awaits")
    ended.complete(4096)
    failed.reject(error)
    alive = weakref.ref(ended), weakref.ref(failed)
    del ended, failed
    gc.collect()
    assert [each() for each in alive] == [None, None]
    assert reported == [error]


def test_the_end_of_an_operation_whose_task_was_destroyed_resumes_nothing():
    """Its loop was closed, or dropped, in the middle: the reaper of another loop finds the sink only."""
    loop, seen = asyncio.new_event_loop(), []
    wait = Wait(loop=loop)
    coroutine = ending(wait, seen)
    coroutine.send(None)
    coroutine.close()
    assert isinstance(seen.pop(), GeneratorExit)
    wait.complete(4096)
    assert wait.done()
    assert seen == []
    loop.close()


async def test_a_task_that_the_loops_end_destroys_is_not_entered_again(wait):
    """The wake-up of a task that is done does nothing: asyncio's step asserts that, so it is asked for once."""
    seen = []
    task = C.start(asyncio.get_running_loop(), ending(wait, seen))
    await asyncio.sleep(0)
    await outside(wait.complete, 1)
    await task
    await outside(wait.complete, 2)
    await asyncio.sleep(0)
    assert seen == [1]


async def test_resumed_through_the_loop_it_is_safe_against_a_dropped_call(start, wait, monkeypatch):
    """A signal handler that raises before a callback's first line makes the loop drop that call."""
    loop, real, calls = asyncio.get_running_loop(), asyncio.get_running_loop().call_soon, []

    def call_soon(callback, *args, **options):
        if callback == wait.resolve and not calls:
            calls.append(callback)
            return None
        return real(callback, *args, **options)

    seen = []
    task = start(ending(wait, seen))
    await asyncio.sleep(0)
    monkeypatch.setattr(loop, "call_soon", call_soon)
    wait.complete(1)
    assert len(calls) == 1
    await task
    assert seen == [1]
