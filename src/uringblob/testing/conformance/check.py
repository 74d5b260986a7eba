"""One sentence of the contract and the code that asks a store about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uringblob.testing.conformance.subject import Subject

Ask = Callable[["Subject"], Awaitable[None]]

#: What a check may need of a store, and why a store without it is not asked.
NEEDS = {
    "async": "only an asynchronous store has tasks",
    "sync": "only a synchronous store has threads",
    "file": "only a file store has a file and an engine",
    "reopen": "no reopen= was given, so the store cannot be asked what survives",
    "own_commit": "the inherited commit is not atomic, and says so",
    "own_close": "the inherited close cannot refuse later calls of the five methods",
    "own_needs_flush": "the inherited needs_flush is always true",
    "own_stats": "the inherited stats count nothing",
}


class ConformanceError(AssertionError):
    """A store broke a sentence of the contract; the message has the sentence and what happened."""


@dataclasses.dataclass(frozen=True)
class Check:
    """A named check; ``sentence`` is the contract's, ``needs`` are keys of ``NEEDS``."""

    name: str
    sentence: str
    needs: tuple[str, ...]
    ask: Ask = dataclasses.field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.name


def check(sentence: str, *needs: str) -> Callable[[Ask], Check]:
    """Make a function a :class:`Check` of ``sentence``."""
    assert set(needs) <= set(NEEDS)

    def decorate(ask: Ask) -> Check:
        return Check(ask.__name__, sentence, needs, ask)

    return decorate


def expect(condition: object, happened: str) -> None:
    """Fail the check, saying what happened, unless ``condition`` holds."""
    if not condition:
        raise ConformanceError(happened)


async def refused(
    errors: type[BaseException] | tuple[type[BaseException], ...],
    call: Callable[..., Any],
    *args: object,
) -> BaseException:
    """Call, and await where there is something to await; return the error, one of ``errors``."""
    kinds = errors if isinstance(errors, tuple) else (errors,)
    wanted = " or ".join(kind.__name__ for kind in kinds)
    what = getattr(call, "__name__", repr(call))
    try:
        result = call(*args)
        if isinstance(result, Awaitable):
            result = await result
    except kinds as error:
        return error
    except Exception as error:
        raise ConformanceError(f"{what} raised {error!r} instead of {wanted}") from error
    raise ConformanceError(f"{what} returned {result!r} instead of raising {wanted}")
