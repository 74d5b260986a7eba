"""The doctor in a real container: under the default seccomp profile, and after its remedy.

buildah's chroot isolation needs no daemon and no image: the container's files are this machine's,
mounted into an empty one.  Its default profile is podman's, which answers ENOSYS.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import NOT_APPLICABLE

pytestmark = [pytest.mark.one_interpreter, pytest.mark.usefixtures("needs_uring", "needs_root")]

PROFILE = Path(__file__).resolve().parents[3] / "docker" / "seccomp-uringblob.json"
#: The container has its own.
NOT_MOUNTED = {"proc", "sys", "dev", "run", "lost+found"}


@pytest.fixture
def report_in_container(disk_dir):
    """Run the doctor in a container with these further options; return its JSON."""
    if shutil.which("buildah") is None:
        pytest.skip(f"{NOT_APPLICABLE} no buildah here (Debian: buildah)")
    storage = [
        "--storage-driver",
        "vfs",
        "--root",
        str(disk_dir / "store"),
        "--runroot",
        str(disk_dir / "run"),
    ]

    def buildah(*arguments, **options):
        command = ["buildah", *storage, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)

    made = buildah("from", "scratch")
    if made.returncode:
        pytest.skip(f"{NOT_APPLICABLE} buildah cannot work here: {made.stderr.strip()[-200:]}")
    buildah("rm", made.stdout.strip())
    folders = [
        f"/{name}" for name in os.listdir("/") if name not in NOT_MOUNTED and os.path.isdir(f"/{name}")
    ]
    mounts = [part for folder in folders for part in ("-v", f"{folder}:{folder}")]
    (disk_dir / "data").mkdir()

    def run(*options):
        container = buildah("from", *options, "scratch").stdout.strip()
        doctor = [sys.executable, "-m", "uringblob", "doctor", "--json", str(disk_dir / "data")]
        try:
            done = buildah("run", "--isolation", "chroot", *mounts, container, "--", *doctor, timeout=100)
        finally:
            buildah("rm", container)
        assert done.stdout.startswith("{"), done.stderr
        return json.loads(done.stdout)

    yield run
    shutil.rmtree(disk_dir / "store", ignore_errors=True)


def test_the_default_profile_refuses_and_the_remedy_works(report_in_container):
    refused = report_in_container()
    assert (refused["exit_code"], [cause["key"] for cause in refused["causes"]]) == (1, ["seccomp"])
    assert "ENOSYS" in refused["verdict"]
    option = "--security-opt seccomp=docker/seccomp-uringblob.json"
    assert option in refused["command"]

    allowed = report_in_container("--security-opt", f"seccomp={PROFILE}")
    assert allowed["exit_code"] == 0
    assert allowed["findings"]["seccomp"]["facts"] == {"seccomp": 2}
    assert "seccomp" not in [cause["key"] for cause in allowed["causes"]]
