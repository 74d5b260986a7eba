"""The page of what no test reaches: its places exist, and what was not reached must stand there."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.one_interpreter

ROOT = Path(__file__).resolve().parent.parent
_spec = importlib.util.spec_from_file_location("unreached", ROOT / "tools" / "unreached.py")
unreached = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(unreached)

PAGE = (ROOT / unreached.PAGE).read_text("utf-8")


def test_every_row_has_a_place_that_exists_and_a_reason():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    listed = unreached.places_listed(PAGE)
    assert len(rows) == len(listed), "a row that the tool cannot read, or one twice"
    for row in rows:
        *_, what, reason, _ = (cell.strip() for cell in row.split(" | ".strip()))
        assert what, row
        assert reason, row
    for file, function in listed:
        names = set(unreached.functions_of((ROOT / file).read_text("utf-8")).values())
        assert function in names | {"<module>"}, f"{file} has no {function}"


def test_what_is_left_out_of_the_count_is_named_on_the_page():
    """Whoever leaves out more says so."""
    settings = (ROOT / "pyproject.toml").read_text("utf-8").partition("[tool.coverage.run]")[2]
    assert "omit" not in settings.partition("\n[")[0]
    report = settings.partition("[tool.coverage.report]")[2].partition("\n\n")[0]
    assert f"fail_under = {unreached.BRANCHES_MIN:g}\n" in report
    assert len(re.findall(r'^    "', report, re.MULTILINE)) == 6
    for path in (ROOT / "src").rglob("*.py"):
        assert not re.search(r"pragma: no (cover|branch)", path.read_text("utf-8")), path


@pytest.fixture
def judge(tmp_path, monkeypatch, capsys):
    """Judge a report of one file, of which ``missing`` was not reached, by a page that lists ``rows``."""

    def run(missing, rows=(), branches=100):
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / unreached.PAGE.parent).mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / "a.py").write_text("class A:\n    def f(self):\n        return 1\n\nx = 2\n")
        (tmp_path / unreached.PAGE).write_text(
            "".join(f"| `src/a.py` | `{name}` | it | because |\n" for name in rows)
        )
        totals = {"covered_branches": branches, "num_branches": 100, "covered_lines": 1, "num_statements": 1}
        files = {"src/a.py": {"missing_lines": missing, "missing_branches": []}}
        (tmp_path / "report.json").write_text(json.dumps({"totals": totals, "files": files}))
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(unreached.sys, "argv", ["unreached.py", "report.json"])
        return unreached.main(), capsys.readouterr().out

    return run


def test_what_is_not_reached_must_be_listed(judge):
    assert judge([]) == (0, "lines     1 of 1\nbranches  100 of 100: 100.0 %\n")
    status, said = judge([3])
    assert status == 1
    assert f"src/a.py: A.f: not reached, and not in {unreached.PAGE}: lines [3]" in said
    assert judge([3], ["A.f"])[0] == 0
    status, said = judge([3, 5], ["A.f"])
    assert status == 1
    assert "src/a.py: <module>: not reached" in said


def test_what_is_listed_and_reached_is_said_and_is_no_failure(judge):
    """Some places are reached in one run of many."""
    status, said = judge([], ["A.f"])
    assert status == 0
    assert "A.f: reached this time" in said


def test_too_few_branches_fail(judge):
    assert judge([], branches=95)[0] == 0
    status, said = judge([], branches=94)
    assert status == 1
    assert "fewer than 95 %" in said
