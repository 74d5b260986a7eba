"""A contender with another value of one of the store's constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest import mock

from uringblob import tuning
from uringblob_bench.contenders.base import Contender
from uringblob_bench.load import Load
from uringblob_bench.sample import Sample


class Tuned(Contender):
    """A contender that takes its turns with another value of one constant of the store."""

    def __init__(self, contender: Contender, constant: str, value: float) -> None:
        super().__init__(contender.params, contender.workdir)
        self.name = f"{contender.name}, {constant}={value}"
        self.durability = contender.durability
        self._contender = contender
        self._constant, self._value = constant, value

    def cold(self, loads: Sequence[Load]) -> bool:
        return self._contender.cold(loads)

    def settings(self) -> dict[str, Any]:
        return {**self._contender.settings(), self._constant: self._value}

    def prepare(self) -> None:
        self._contender.prepare()

    def turn(self, loads: Sequence[Load], seconds: float) -> list[Sample]:
        with mock.patch.object(tuning, self._constant, self._value):
            return self._contender.turn(loads, seconds)
