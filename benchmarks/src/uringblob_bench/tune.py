"""A constant of the store to be compared at several values, as the command line names it."""

from __future__ import annotations

import argparse
import dataclasses

from uringblob import tuning


@dataclasses.dataclass(frozen=True)
class Tune:
    """A constant of :mod:`uringblob.tuning`, and the values to compare."""

    constant: str
    values: tuple[float, ...]


def tune_of(text: str) -> Tune:
    """Read ``NAME=V1,V2``.

    :raises argparse.ArgumentTypeError: there is no such constant, or a value is no number.
    """
    constant, _, values = text.partition("=")
    if constant not in tuning.NAMES:
        raise argparse.ArgumentTypeError(f"no constant {constant!r}: there are {', '.join(tuning.NAMES)}")
    kind = type(getattr(tuning, constant))
    try:
        return Tune(constant, tuple(kind(value) for value in values.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{values!r} is not a list of values of {constant}, such as {getattr(tuning, constant)}"
        ) from None
