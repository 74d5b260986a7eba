"""Drives the tasks or threads of a session, from before the first counted call to after the last."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from uringblob_bench import ticker
from uringblob_bench.load import Load, Verb
from uringblob_bench.meter import Meter, Worker, now
from uringblob_bench.picker import Exhausted
from uringblob_bench.sample import Latency, Sample

#: A turn's share that is driven before counting begins.
WARM_UP = 0.1

TaskCall = Callable[[], Awaitable[object]]
ThreadCall = Callable[[], object]
#: From what is to be called at the end of each call, with an error if there was one, to what begins a call.
Chain = Callable[[Callable[..., None]], Callable[[], None]]
_TICKERS = {Verb.TICK: ticker.tick, Verb.SLEEP: ticker.sleep}


async def serve_by_task(call: TaskCall, worker: Worker) -> None:
    """Await one call after the other."""
    started = now()
    keep = worker.seconds.append
    try:
        while not worker.done:
            await call()
            moment = now()
            keep(moment - started)
            started = moment
            if moment >= worker.bound:
                worker.passed(moment)
    except Exhausted:
        worker.exhausted(now())


async def serve_by_callbacks(chain: Chain, worker: Worker) -> None:
    """Begin each call in the callback that ended the one before: no task takes a step meanwhile."""
    ended = asyncio.get_running_loop().create_future()
    keep = worker.seconds.append
    started = now()

    def then(error: BaseException | None = None) -> None:
        nonlocal started
        if ended.done():  # the driver was cancelled
            return
        moment = now()
        keep(moment - started)
        started = moment
        if moment >= worker.bound:
            worker.passed(moment)
        if error is not None:
            ended.set_exception(error)
        elif worker.done:
            ended.set_result(None)
        else:
            begin()

    begin = chain(then)
    begin()
    await ended


def _thread(call: ThreadCall, worker: Worker) -> None:
    started = now()
    keep = worker.seconds.append
    try:
        while not worker.done:
            call()
            moment = now()
            keep(moment - started)
            started = moment
            if moment >= worker.bound:
                worker.passed(moment)
    except Exhausted:
        worker.exhausted(now())


class Driven:
    """The workers of all loads of one turn."""

    def __init__(self, loads: Sequence[Load], seconds: float, *, warm_up: bool = True) -> None:
        self.meter = Meter(seconds * WARM_UP if warm_up else 0.0, seconds)
        if not warm_up:
            self.meter.begun()
        self.loads = [(load, [Worker(self.meter) for _ in range(load.workers)]) for load in loads]
        for _, workers in self.loads:
            for worker in workers if not warm_up else ():
                worker.bound = self.meter.end

    def samples(self, page_size: int, **extra: Any) -> list[Sample]:
        """Return one sample per load."""
        return [self._sample(load, workers, page_size, extra) for load, workers in self.loads]

    def _sample(self, load: Load, workers: list[Worker], page_size: int, extra: dict[str, Any]) -> Sample:
        latencies = [second for worker in workers for second in worker.seconds]
        last = max(worker.last for worker in workers)
        seconds = (last if last > self.meter.begin else self.meter.end) - self.meter.begin
        extra = {"load": str(load), **extra}
        if not latencies:
            # No call ended within the turn: take those that were in progress at its end, one of each worker.
            latencies = [worker.overrun for worker in workers]
            seconds, extra["overran"] = max(latencies), True
        user, system = self.meter.cpu()
        frames = len(latencies) * load.frames
        return Sample(frames, seconds, page_size, Latency.of(latencies), user, system, extra)


async def drive_tasks(
    call_for: Callable[[Load, int], Any],
    loads: Sequence[Load],
    seconds: float,
    *,
    warm_up: bool = True,
    serve: Callable[[Any, Worker], Coroutine[Any, Any, None]] = serve_by_task,
) -> Driven:
    """Run every load's workers on the running loop.  ``call_for(load, number)`` makes what ``serve`` takes."""
    calls = [
        (load, [None if load.is_ticker else call_for(load, n) for n in range(load.workers)]) for load in loads
    ]
    driven = Driven(loads, seconds, warm_up=warm_up)
    tasks = [
        asyncio.ensure_future(_TICKERS[load.verb](worker) if call is None else serve(call, worker))
        for (load, workers), (_, made) in zip(driven.loads, calls, strict=True)
        for worker, call in zip(workers, made, strict=True)
    ]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return driven


def drive_threads(
    call_for: Callable[[Load, int], ThreadCall],
    loads: Sequence[Load],
    seconds: float,
    *,
    warm_up: bool = True,
) -> Driven:
    """Run every load's workers as threads; the first error of any of them is raised at the end."""
    calls = [[call_for(load, number) for number in range(load.workers)] for load in loads]
    driven = Driven(loads, seconds, warm_up=warm_up)
    errors: list[BaseException] = []

    def work(call: ThreadCall, worker: Worker) -> None:
        try:
            _thread(call, worker)
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread that asked
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(call, worker), name=f"bench {load}")
        for (load, workers), made in zip(driven.loads, calls, strict=True)
        for worker, call in zip(workers, made, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return driven
