"""The runner itself: time is shared, failures are replayed, what dies or hangs is a failure."""

from __future__ import annotations

import json

import pytest

from torture import outcome as tables
from torture.rows import LOT_SEEDS, load
from torture.runner import Runner

pytestmark = [
    pytest.mark.one_interpreter,
    pytest.mark.leaks("multiprocessing's resource tracker lives as long as the interpreter"),
]

FAKES = "torture.fakes"


@pytest.fixture
def run():
    """Run some of the fake rows; return their outcomes by name."""
    rows = load(modules=[FAKES])

    def go(*names, seconds=1.0, seed=100, hung_s=60.0):
        chosen = [r for r in rows if r.run.__name__ in names]
        runner = Runner(chosen, seconds=seconds, seed=seed, workers=2, modules=(FAKES,))
        runner.hung_s = hung_s
        return {o.row.run.__name__: o for o in runner.run()}

    return go


def test_rows_that_end_and_rows_that_do_not(run):
    found = run("finite", "endless", "absent")
    assert found["finite"].done == 10
    assert found["finite"].result == "all passed, every one"
    assert found["endless"].counts["things"] > 0
    assert found["endless"].result.startswith("all passed")
    assert found["absent"].result == "not run: no such machine"
    assert not found["absent"].lots_begun


def test_a_failure_names_the_step_that_replays_it(run, capsys):
    (failure,) = run("failing", seed=7)["failing"].failures
    assert failure.replay.startswith(f"replay: make torture ROWS=93 SEED={7 + LOT_SEEDS + 3} ")
    assert "step 3 of lot 1" in failure.message
    assert failure.replay in capsys.readouterr().out


def test_its_own_replay_line_is_kept(run):
    (failure,) = run("self_telling")["self_telling"].failures
    assert failure.replay == "replay: everything"


def test_a_process_that_dies_is_a_failure(run):
    (failure,) = run("dying")["dying"].failures
    assert "its process ended with -9" in failure.message


def test_a_step_that_hangs_is_a_failure(run):
    (failure,) = run("hanging", seconds=0.1, hung_s=0.5)["hanging"].failures
    assert "hung" in failure.message


def test_the_tables_hold_what_was_done(run):
    outcomes = list(run("finite", "failing").values())
    assert "| 91 | a row that ends | every thing | 10 things |" in tables.markdown_table(outcomes)
    assert "1 FAILED" in tables.text_table(outcomes)
    rows = {entry["name"]: entry for entry in json.loads(tables.as_json(outcomes, seed=1))["rows"]}
    assert rows["finite"]["whole"]
    assert rows["failing"]["failures"]


def test_every_module_of_rows_can_be_loaded():
    """A row that cannot be imported would be missed only when it is needed."""
    assert {r.number for r in load()} >= {2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 17, 18, 19}


def test_the_figures_go_between_the_marks_of_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- torture: begin -->\nold\n<!-- torture: end -->\nb\n")
    tables.update_page(page, "new")
    assert page.read_text() == "a\n<!-- torture: begin -->\n\nnew\n<!-- torture: end -->\nb\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="no marks"):
        tables.update_page(page, "new")
