"""Progress: a bar on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO, TypeVar

BAR_WIDTH = 40
REDRAW_SECONDS = 0.05
PLAIN_STEPS = 4
MEGABYTE = 1_000_000

Self = TypeVar("Self", bound="Progress")


class Progress:
    """Bytes done of bytes to do, shown under a label, and the time since the start.

    Use as a context manager: the clock runs inside it.
    """

    def __init__(self, label: str, total: int, stream: TextIO | None = None) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self.seconds = 0.0
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._started = time.monotonic()
        self._drawn = 0.0
        self._step = 0

    def add(self, count: int) -> None:
        """Count ``count`` more bytes as done."""
        self.done += count
        if self._terminal:
            self._draw_bar()
        else:
            self._print_step()

    @property
    def rate(self) -> float:
        """Megabytes (of 1,000,000 bytes) a second, over the whole time."""
        return self.done / MEGABYTE / self.seconds if self.seconds else 0.0

    def _draw_bar(self) -> None:
        now = time.monotonic()
        if now - self._drawn < REDRAW_SECONDS and self.done < self.total:
            return
        self._drawn = now
        filled = BAR_WIDTH * self.done // max(self.total, 1)
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        self._stream.write(f"\r{self.label:<10} [{bar}] {self._numbers()}")
        self._stream.flush()

    def _print_step(self) -> None:
        step = PLAIN_STEPS * self.done // max(self.total, 1)
        if step > self._step:
            self._step = step
            self._stream.write(f"{self.label:<10} {self._numbers()}\n")

    def _numbers(self) -> str:
        percent = 100 * self.done // max(self.total, 1)
        return f"{percent:3d} %  {self.done / MEGABYTE:.1f} of {self.total / MEGABYTE:.1f} MB"

    def __enter__(self: Self) -> Self:
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.monotonic() - self._started
        if self._terminal:
            # The next line replaces the bar.
            self._stream.write("\r\x1b[K" if error is None else "\n")
            self._stream.flush()
