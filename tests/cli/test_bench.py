"""``bench`` is another distribution's command: imported when it is named, refused in one line without it."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from uringblob.cli import bench, main
from uringblob.cli.errors import Parser

GET_IT = "needs the distribution uringblob-bench: pip install uringblob-bench (from a clone: ./benchmarks)"


@pytest.fixture
def missing(monkeypatch):
    """The distribution is not installed."""
    monkeypatch.setattr(bench, "_PACKAGE", "no_such_package")


@pytest.mark.parametrize("words", [[], ["--help"], ["--list"], ["/tmp", "--measure", "4"]])
def test_without_the_distribution_one_line_says_how_to_get_it(missing, words, capfd):
    assert main.main(["bench", *words]) == 2
    result = capfd.readouterr()
    assert (result.out, result.err) == ("", f"uringblob bench: {GET_IT}\n")


def test_without_the_distribution_the_error_is_json_if_asked_for(missing, capfd):
    assert main.main(["bench", "--json", "file"]) == 2
    failure = json.loads(capfd.readouterr().err)
    assert (failure["error"], failure["command"], failure["exit_code"]) == (GET_IT, "bench", 2)


def test_a_module_that_the_distribution_lacks_is_no_missing_distribution(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("no module matplotlib", name="matplotlib")

    monkeypatch.setattr(bench, "importlib", SimpleNamespace(import_module=broken))
    with pytest.raises(ModuleNotFoundError, match="matplotlib"):
        bench.add_arguments(Parser())


def test_its_arguments_and_its_exit_code_are_its_own(monkeypatch):
    command = SimpleNamespace(
        add_arguments=lambda parser: parser.add_argument("--rounds", type=int), run=lambda args: args.rounds
    )
    monkeypatch.setitem(sys.modules, "uringblob_bench", SimpleNamespace(command=command))
    monkeypatch.setitem(sys.modules, "uringblob_bench.command", command)
    assert main.main(["bench", "--rounds", "7"]) == 7


def test_other_commands_do_not_import_it():
    code = (
        "import sys; from uringblob.cli.main import main; main(['ls', '/nonexistent']);"
        "print([name for name in sys.modules if name.startswith('uringblob_bench')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
