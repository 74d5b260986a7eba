"""The container profile is the default one and three calls more, and the script makes it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tools.make_seccomp_profile import ALLOW, CALLS, with_io_uring

PROFILE = json.loads(
    (Path(__file__).resolve().parent.parent / "docker" / "seccomp-uringblob.json").read_text("utf-8")
)


def rules_with(profile, call):
    return [rule for rule in profile["syscalls"] if call in rule["names"]]


def test_the_three_calls_are_allowed_without_conditions():
    for call in CALLS:
        (rule,) = rules_with(PROFILE, call)
        assert rule["action"] == ALLOW
        assert not (rule["args"])
        assert not (rule["includes"])
        assert not (rule["excludes"])


def test_it_is_an_allow_list_still():
    assert PROFILE["defaultAction"] == "SCMP_ACT_ERRNO"
    for dangerous in ("kexec_load", "bpf", "init_module"):
        for rule in rules_with(PROFILE, dangerous):
            assert rule["action"] != ALLOW or rule["includes"], f"{dangerous} is allowed to everybody"


def test_making_it_again_changes_nothing():
    assert with_io_uring(PROFILE) == PROFILE


def test_a_default_that_refuses_the_calls_by_name_is_overruled():
    refusing = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [
            {"names": ["read"], "action": ALLOW},
            {"names": ["io_uring_setup", "kexec_load"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["io_uring_enter"], "action": "SCMP_ACT_ERRNO"},
        ],
    }
    made = with_io_uring(refusing)
    assert [rule["names"] for rule in made["syscalls"]] == [["read"], ["kexec_load"], list(CALLS)]


def test_a_deny_list_is_no_place_to_add_to():
    with pytest.raises(ValueError, match="allow-list"):
        with_io_uring({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["bpf"]}]})
