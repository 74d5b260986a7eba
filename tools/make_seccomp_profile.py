"""Make docker/seccomp-uringblob.json: the usual default profile, and the three calls of io_uring.

The profile begun from is the default of podman and buildah, as Debian's package
``golang-github-containers-common`` installs it (``/usr/share/containers/seccomp.json``; Apache-2.0,
derived from moby's).  Docker reads the same format.  To renew it, install a newer one and run::

    python tools/make_seccomp_profile.py /usr/share/containers/seccomp.json docker/seccomp-uringblob.json

One thing is changed: the three calls are allowed, and leave whatever list refused them.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

CALLS = ("io_uring_enter", "io_uring_register", "io_uring_setup")
ALLOW = "SCMP_ACT_ALLOW"


def with_io_uring(profile: dict[str, Any]) -> dict[str, Any]:
    """Return ``profile`` with the three calls allowed, whatever it said of them before.

    :raises ValueError: it is no allow-list, so that adding to it would mean something else.
    """
    if profile.get("defaultAction") != "SCMP_ACT_ERRNO" or not profile.get("syscalls"):
        raise ValueError("not an allow-list: its defaultAction is not SCMP_ACT_ERRNO")
    rules = []
    for rule in profile["syscalls"]:
        names = [name for name in rule["names"] if name not in CALLS]
        if names:
            rules.append({**rule, "names": names})
    rules.append({"names": list(CALLS), "action": ALLOW, "args": [], "includes": {}, "excludes": {}})
    return {**profile, "syscalls": rules}


def main() -> None:
    """Read one profile, write the other."""
    source, target = map(pathlib.Path, sys.argv[1:])
    profile = with_io_uring(json.loads(source.read_text("utf-8")))
    target.write_text(json.dumps(profile, indent=2) + "\n", "utf-8")
    print(f"{target}: {sum(len(rule['names']) for rule in profile['syscalls'])} calls in rules")


if __name__ == "__main__":
    main()
