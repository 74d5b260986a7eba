"""The checks of the machine, shown other machines: files below another root."""

from __future__ import annotations

import errno
import io
import os
import tempfile

import pytest

from uringblob.cli.doctor import disk, machine
from uringblob.cli.doctor.facts import Level


@pytest.fixture
def show(tmp_path):
    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("files", "environ", "kind"),
    [
        ({}, {}, ""),
        ({".dockerenv": ""}, {}, "docker"),
        ({"run/.containerenv": ""}, {"container": "oci"}, "podman"),
        ({".dockerenv": ""}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes"),
        ({"proc/1/cgroup": "0::/kubepods.slice/pod1"}, {}, "kubernetes"),
        ({"proc/1/cgroup": "1:cpu:/lxc/one"}, {}, "lxc"),
        ({}, {"container": "systemd-nspawn"}, "systemd-nspawn"),
        ({"proc/version": "Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016"}, {}, "gvisor"),
    ],
)
def test_the_container_runtime_is_recognized(show, files, environ, kind):
    assert machine.check_container(show(files), environ).facts["container"] == kind


def test_a_unit_is_not_a_container(show):
    facts = machine.check_container(show({}), {"INVOCATION_ID": "1"}).facts
    assert facts == {"container": "", "systemd_unit": True}


def test_kernels(show):
    seen = machine.check_kernel(show({"proc/sys/kernel/osrelease": "5.4.0-100-generic\n"}), "linux")
    assert (seen.facts["kernel"], seen.level) == ((5, 4), Level.NOTE)
    assert machine.check_kernel(platform="darwin").facts == {"linux": False}


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("1", 1), ("2", 2), (None, -1)])
def test_the_sysctl(show, text, value):
    files = {"proc/sys/kernel/io_uring_disabled": text, "proc/sys/kernel/io_uring_group": "990"}
    seen = machine.check_sysctl(show(files if text else {}))
    assert seen.facts == {"uring_disabled": value, "uring_group": 990 if text else -1}


@pytest.mark.parametrize(("mode", "value"), [("0", 0), ("2", 2), (None, -1)])
def test_seccomp(show, mode, value):
    status = f"Name:\tx\nSeccomp:\t{mode}\nSeccomp_filters:\t7\n" if mode else ""
    assert machine.check_seccomp(show({"proc/self/status": status})).facts == {"seccomp": value}


@pytest.mark.parametrize(
    ("mapped", "inside"), [("0 0 4294967295", False), ("0 100000 65536", True), ("", False)]
)
def test_rights_in_a_user_namespace(show, mapped, inside):
    files = {"proc/self/status": "CapEff:\t0000000000004000\n", "proc/self/uid_map": mapped}
    seen = machine.check_rights(show(files))
    assert (seen.facts["user_namespace"], seen.facts["capabilities"]) == (inside, 1 << 14)
    assert "CAP_IPC_LOCK yes" in seen.text


MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 0:25 / /mnt/a\\040b ro,nosuid - tmpfs none rw,size=4k
31 27 0:26 / /mnt/a\\040b rw - xfs /dev/vdb rw
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/", ("ext4", "/", "rw,relatime,discard")),
        ("/mnt/a", ("ext4", "/", "rw,relatime,discard")),
        ("/mnt/a b/c", ("xfs", "/mnt/a b", "rw")),
        ("/mnt/a bc", ("ext4", "/", "rw,relatime,discard")),
    ],
)
def test_the_mount_that_a_path_lies_on(show, path, found):
    root = show({"mountinfo": MOUNTS})
    assert disk.find_mount(path, root / "mountinfo") == found


@pytest.mark.parametrize(
    ("kept", "given"),
    [
        (None, "--no-binary uringblob uringblob"),
        ('{"url": "file:///src/a b", "dir_info": {"editable": true}}', "--editable '/src/a b'"),
        ('{"url": "file:///src/clone", "dir_info": {}}', "/src/clone"),
        ('{"url": "file:///dist/uringblob-0.1-py3-none-any.whl"}', "--no-binary uringblob uringblob"),
        ('{"url": "https://example.org/uringblob.tar.gz"}', "https://example.org/uringblob.tar.gz"),
    ],
)
def test_pip_arguments_to_install_it_again(monkeypatch, kept, given):
    class Installed:
        def read_text(self, name):
            assert name == "direct_url.json"
            return kept

    monkeypatch.setattr(machine.metadata, "distribution", lambda _name: Installed())
    assert machine.installed_from() == given


def test_pip_gets_the_name_of_what_was_never_installed(monkeypatch):
    """A checkout on ``PYTHONPATH``, say."""

    def distribution(name):
        raise machine.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.metadata, "distribution", distribution)
    assert machine.installed_from() == "uringblob"


def test_a_closed_sys_is_reported(tmp_path, monkeypatch):
    """As podman masks it: an unreadable directory is not reported as missing."""
    found = disk.check_device(str(tmp_path), tmp_path)
    assert found.text == "no block device to be seen behind it"
    monkeypatch.setattr(disk.os, "access", lambda path, mode: False)
    found = disk.check_device(str(tmp_path), tmp_path)
    assert found.level is Level.NOTE
    assert "closed to this user" in found.text


def test_a_missing_queue_attribute_is_unknown(tmp_path):
    number = os.stat(tmp_path).st_dev
    (tmp_path / f"{os.major(number)}:{os.minor(number)}" / "queue").mkdir(parents=True)
    found = disk.check_device(str(tmp_path), tmp_path)
    assert (found.detail["write_cache"], found.detail["fua"]) == ("unknown", False)


def test_a_test_file_that_cannot_be_written_is_named_and_removed(disk_dir, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "full")

    def made(directory):
        descriptor, path = tempfile.mkstemp(dir=directory)
        os.unlink(path)
        return Full(descriptor, "r+")

    monkeypatch.setattr(disk, "_test_file", made)
    found = disk.check_direct(str(disk_dir))
    assert found.level is Level.BAD
    assert found.text == "the test file: ENOSPC (No space left on device)"
    assert found.facts == {"direct": False, "direct_reason": found.text}
    assert os.listdir(disk_dir) == []
