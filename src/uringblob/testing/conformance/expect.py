"""What a check says when a store breaks a sentence of the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any


class ConformanceError(AssertionError):
    """A store broke a sentence of the contract; the message has the sentence and what happened."""


def expect(condition: object, happened: str) -> None:
    """Fail the check with ``happened`` as its message unless ``condition`` holds."""
    if not condition:
        raise ConformanceError(happened)


async def refused(
    errors: type[BaseException] | tuple[type[BaseException], ...],
    call: Callable[..., Any],
    *args: object,
) -> BaseException:
    """Call, await an awaitable result, and return the error, which must be one of ``errors``."""
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
