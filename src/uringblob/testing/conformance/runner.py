"""Runs the checks: a new store for each, closed afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from uringblob.testing.conformance.catalogue import CHECKS
from uringblob.testing.conformance.check import NEEDS, Check
from uringblob.testing.conformance.expect import ConformanceError
from uringblob.testing.conformance.subject import MakeStore, Subject

#: Seconds after which a check counts as hanging.
PATIENCE = 120.0


@dataclasses.dataclass(frozen=True)
class ConformanceReport:
    """The checks that a store passed, and those that were not run, each with the reason."""

    passed: tuple[Check, ...] = ()
    not_asked: tuple[tuple[Check, str], ...] = ()

    def __str__(self) -> str:
        lines = [f"passed     {check.name}: {check.sentence}" for check in self.passed]
        lines += [f"not asked  {check.name}: {reason}" for check, reason in self.not_asked]
        return "\n".join(lines)


def check_blob_store(
    make_store: MakeStore,
    *,
    reopen: MakeStore | None = None,
    checks: Iterable[Check] = CHECKS,
    timeout: float = PATIENCE,
) -> ConformanceReport:
    """Check a :class:`~uringblob.BlobStore` against every sentence of the contract.

    :param make_store: makes a new, empty store at each call; its class will do, if it can be
        made without arguments.  Stores of any ``page_size`` may be checked.
    :param reopen: for a store that outlives its closing: opens again what ``make_store`` made
        last, after that was closed.
    :param checks: which checks to run.
    :param timeout: seconds after which one check counts as hanging.
    :raises ConformanceError: at the first sentence that the store breaks.

    Calls the store from several threads; works in a thread in which an event loop runs.
    """
    work = check_async_blob_store(make_store, reopen=reopen, checks=checks, timeout=timeout)
    with ThreadPoolExecutor(1, "conformance") as thread:
        return thread.submit(asyncio.run, work).result()


async def check_async_blob_store(
    make_store: MakeStore,
    *,
    reopen: MakeStore | None = None,
    checks: Iterable[Check] = CHECKS,
    timeout: float = PATIENCE,
) -> ConformanceReport:
    """Check an :class:`~uringblob.AsyncBlobStore`, like :func:`check_blob_store`, on this loop.

    ``make_store`` and ``reopen`` may also return an awaitable of a store.
    """
    passed: list[Check] = []
    not_asked: list[tuple[Check, str]] = []
    with ThreadPoolExecutor(16, "conformance-caller") as threads:
        for check in checks:
            reason = await _run(check, Subject(make_store, reopen, threads), timeout)
            if reason is None:
                passed.append(check)
            else:
                not_asked.append((check, reason))
    return ConformanceReport(tuple(passed), tuple(not_asked))


async def _run(check: Check, subject: Subject, patience: float) -> str | None:
    """Run one check; return why it was not run, or ``None``."""
    await subject.begin()
    failed = True
    try:
        for need in check.needs:
            if not subject.has(need):
                return NEEDS[need]
        await asyncio.wait_for(check.ask(subject), patience)
        await subject.end()
        failed = False
    except ConformanceError as error:
        raise _broken(check, str(error)) from error.__cause__
    except asyncio.TimeoutError as error:
        raise _broken(check, f"it did not come to an end within {patience} s") from error
    except Exception as error:
        raise _broken(check, f"it raised {error!r}") from error
    finally:
        if failed:
            # A store that fails a check may fail to close, too: only the first failure is reported.
            with contextlib.suppress(Exception):
                await subject.end()
    return None


def _broken(check: Check, happened: str) -> ConformanceError:
    return ConformanceError(f"{check.name}: the contract says\n  {check.sentence}\nbut {happened}")
