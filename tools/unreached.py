"""Compare what the tests did not reach with docs/maintainers/coverage.md, which gives every place its reason.

Usage: unreached.py COVERAGE_JSON    (written by ``coverage json``; ``make coverage`` does both)

A place is a function: line numbers change with every edit above them.  Fails where a place without
a row was not reached, and where fewer than 95 % of the branches were.
"""

from __future__ import annotations

import ast
import json
import pathlib
import re
import sys
from typing import Any

BRANCHES_MIN = 95.0
PAGE = pathlib.Path("docs/maintainers/coverage.md")
#: | `file` | `function` | what is not reached | reason |
_ROW = re.compile(r"^\| `(src/[\w/]+\.py)` \| `([\w.<>]+)` \|", re.MULTILINE)

Place = tuple[str, str]


def places_listed(page: str) -> set[Place]:
    """Return the file and function of each row of the page's table."""
    return {(file, function) for file, function in _ROW.findall(page)}


def functions_of(source: str) -> dict[int, str]:
    """Return the qualified name of the innermost function or class around each line of a file."""
    names: dict[int, str] = {}

    def visit(node: ast.AST, outer: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = outer
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = f"{outer}.{child.name}".lstrip(".")
                names.update(dict.fromkeys(range(child.lineno, (child.end_lineno or child.lineno) + 1), name))
            visit(child, name)

    visit(ast.parse(source), "")
    return names


def places_missed(report: dict[str, Any]) -> dict[Place, list[int]]:
    """Return the lines of each place that were not reached, or not left by every branch."""
    missed: dict[Place, list[int]] = {}
    for file, facts in report["files"].items():
        lines = {*facts["missing_lines"], *(begin for begin, _ in facts["missing_branches"])}
        names = functions_of(pathlib.Path(file).read_text("utf-8")) if lines else {}
        for line in sorted(lines):
            missed.setdefault((file, names.get(line, "<module>")), []).append(line)
    return missed


def main() -> int:
    """Print the figures and the places; return the exit status."""
    report = json.loads(pathlib.Path(sys.argv[1]).read_text("utf-8"))
    listed, missed = places_listed(PAGE.read_text("utf-8")), places_missed(report)
    totals = report["totals"]
    branches = 100 * totals["covered_branches"] / totals["num_branches"]
    print(f"lines     {totals['covered_lines']} of {totals['num_statements']}")
    print(f"branches  {totals['covered_branches']} of {totals['num_branches']}: {branches:.1f} %")
    unlisted = sorted(missed.keys() - listed)
    for file, function in unlisted:
        print(f"{file}: {function}: not reached, and not in {PAGE}: lines {missed[file, function]}")
    for file, function in sorted(listed - missed.keys()):
        print(f"{file}: {function}: reached this time, though {PAGE} lists it")
    if branches < BRANCHES_MIN:
        print(f"fewer than {BRANCHES_MIN:g} % of the branches were taken")
    return 1 if unlisted or branches < BRANCHES_MIN else 0


if __name__ == "__main__":
    sys.exit(main())
