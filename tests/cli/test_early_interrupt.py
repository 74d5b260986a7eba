"""Ctrl-C while a command still imports: one line and exit code 130, as later on.

It was a traceback, for the first fifth of a second of every command.  The signal comes out of the
import system itself, while a given module is looked for; nothing sleeps to hit the moment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig

import pytest

from monitor.children import unwatched
from uringblob.cli.errors import Failure

SCRIPT = [sys.executable, os.path.join(sysconfig.get_path("scripts"), "uringblob")]
MODULE = [sys.executable, "-m", "uringblob"]
STRIKE = """\
import signal, sys

class Strike:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Strike())
"""


@pytest.fixture
def struck(tmp_path):
    """Run a command that gets SIGINT while it imports a module; ``ignored`` as in a shell's background."""

    def run(command, module, *, ignored=False):
        (tmp_path / "sitecustomize.py").write_text(STRIKE.format(module=module))
        handler = signal.SIG_IGN if ignored else signal.default_int_handler
        return subprocess.run(
            list(map(str, command)),
            env=unwatched(
                {**os.environ, "PYTHONPATH": str(tmp_path)},
                "the monitor would import the package first; no store is opened here",
            ),
            preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    "module",
    [
        "uringblob.api",  # the first that the package imports
        "uringblob.store.async_store",
        "uringblob.cli.main",
        "uringblob.cli.verify",
    ],
)
@pytest.mark.parametrize("command", [MODULE, SCRIPT], ids=["module", "script"])
def test_ctrl_c_during_an_import_is_one_line_and_130(struck, command, module):
    done = struck([*command, "--version"], module)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "uringblob: interrupted; the store is sound\n"


@pytest.mark.parametrize(
    ("command", "module"),
    [
        ("uringblob.cli.doctor", "uringblob.api"),
        ("uringblob.cli.doctor", "uringblob.cli.doctor.checks"),
    ],
)
def test_the_commands_that_stand_alone_too(struck, command, module):
    done = struck([sys.executable, "-m", command, "--help"], module)
    assert (done.returncode, done.stdout) == (130, "")
    assert "Traceback" not in done.stderr


def test_under_json_the_line_is_an_object(struck):
    done = struck([*MODULE, "ls", "store", "--json"], "uringblob.cli.main")
    failure = json.loads(done.stderr)
    assert set(failure) == {*Failure._fields, "errno_name"}
    assert failure["exit_code"] == done.returncode == 130


def test_a_command_in_the_background_goes_on(struck):
    done = struck([*MODULE, "--version"], "uringblob.store.async_store", ignored=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_imports_the_library_keeps_its_own_manners(struck):
    code = "try:\n    import uringblob\nexcept KeyboardInterrupt:\n    print('mine')"
    done = struck([sys.executable, "-c", code], "uringblob.store.async_store")
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\n", "")


def test_after_the_start_ctrl_c_is_pythons_own_again():
    code = "import signal, uringblob.__main__; print(signal.getsignal(signal.SIGINT).__name__)"
    argv = "import sys; sys.argv[0] = 'uringblob'"
    done = subprocess.run(
        [sys.executable, "-c", f"{argv}; {code}"],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "default_int_handler\n"
