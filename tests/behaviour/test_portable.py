"""No extension, fdatasync, preadv, O_DIRECT, statx or huge pages, on something that says it is a Mac."""

from __future__ import annotations

from behaviour import children


def test_the_conformance_suite_passes(disk_dir):
    reports = children.run("behaviour.child_portable:pass_the_suite", str(disk_dir), 4096)
    for passed, _ in reports:
        assert passed > 40


def test_it_says_what_it_does_without(disk_dir):
    seen = children.run("behaviour.child_portable:look_around", str(disk_dir))
    assert (seen["engine"], seen["direct"], seen["huge"]) == ("pread", False, False)
    assert "darwin" in seen["reason"]
    assert "Linux" in seen["refused"]["import"]
    assert "O_DIRECT" in seen["refused"]["direct"]
    assert seen["left behind"] == ["store"]
