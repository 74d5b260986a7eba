"""``python -m torture``: see the package's docstring."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from pathlib import Path

from torture.outcome import as_json, markdown_table, text_table, update_page
from torture.rows import load
from torture.runner import Runner


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make torture", description="the fault rows at release figures")
    parser.add_argument("--seconds", type=float, default=1200, help="how long, in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of everything (default: %(default)s)")
    parser.add_argument("--rows", default="", help="numbers, with commas between (default: all)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--json", type=Path, help="write the outcome there, for programs")
    parser.add_argument("--update", type=Path, help="put the final table between the marks of this page")
    parser.add_argument("--markdown", type=Path, help="write the final table there, as Markdown")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    rows = load(int(number) for number in given.rows.split(",") if number)
    if not rows:
        print(f"no such row: {given.rows}", file=sys.stderr)
        return 2
    print(
        f"torture: {len(rows)} rows, {given.seconds:.0f} s, seed {given.seed}, {given.workers} processes",
        flush=True,
    )
    runner = Runner(rows, seconds=given.seconds, seed=given.seed, workers=given.workers)
    outcomes = runner.run()
    print(f"\n{text_table(outcomes)}")
    system = f"{platform.system()} {platform.release()}, CPython {platform.python_version()}"
    if given.update:
        said = f"{given.seconds:.0f} s on {given.workers} processors, seed {given.seed}, {system}."
        update_page(given.update, f"{said}\n\n{markdown_table(outcomes)}")
    if given.markdown:
        given.markdown.write_text(markdown_table(outcomes), "utf-8")
    if given.json:
        about = {"seconds": given.seconds, "seed": given.seed, "workers": given.workers, "system": system}
        given.json.write_text(as_json(outcomes, **about), "utf-8")
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    for failure in failures:
        print(f"row {failure.row.number} FAILED  {failure.replay}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
