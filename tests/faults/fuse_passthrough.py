"""A FUSE file system that passes everything on to a directory, except what a plan says: run as a child.

``python -m faults.fuse_passthrough ROOT MOUNTPOINT PLAN``: the plan is a JSON file, read anew at each
request of the kind it names: ``{"kind": "fsync", "errno": 5}``, ``{"kind": "write", "short": 512}``,
``{"kind": "write", "pause_s": 1}``.  An empty plan fails nothing.  Nothing is cached by the kernel
(``direct_io``), so every request of the store arrives here.
"""

from __future__ import annotations

import ctypes.util
import json
import os
import sys
import time

# Written for libfuse 3.  By itself mfusepy takes libfuse 2 where other packages have brought that,
# which cuts requests in other places.
os.environ["FUSE_LIBRARY_PATH"] = ctypes.util.find_library("fuse3") or "libfuse3.so.3"

import mfusepy


class PassThrough(mfusepy.Operations):
    """Requests on files of ``root``, by path."""

    use_ns = True

    def __init__(self, root, plan):
        self._root = root
        self._plan = plan

    def _full(self, path):
        return os.path.join(self._root, path.lstrip("/"))

    def _planned(self, kind):
        with open(self._plan) as file:
            plan = json.load(file)
        if plan.get("kind") != kind:
            return {}
        time.sleep(plan.get("pause_s", 0))
        if "errno" in plan:
            raise mfusepy.FuseOSError(plan["errno"])
        return plan

    def getattr(self, path, fh=None):
        status = os.lstat(self._full(path))
        names = ("st_gid", "st_mode", "st_nlink", "st_size", "st_uid", "st_blocks", "st_ino")
        found = {name: getattr(status, name) for name in names}
        times = {name: getattr(status, f"{name}_ns") for name in ("st_atime", "st_ctime", "st_mtime")}
        return {**found, **times}

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self._full(path))]

    def statfs(self, path):
        status = os.statvfs(self._full(path))
        return {
            name: getattr(status, name) for name in ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_frsize")
        }

    def open(self, path, flags):
        return os.open(self._full(path), flags & ~getattr(os, "O_DIRECT", 0))

    def create(self, path, mode, fi=None):
        return os.open(self._full(path), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

    def release(self, path, fh):
        os.close(fh)

    def read(self, path, size, offset, fh):
        self._planned("read")
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        plan = self._planned("write")
        return os.pwrite(fh, data[: plan.get("short", len(data))], offset)

    def fsync(self, path, datasync, fh):
        self._planned("fsync")
        os.fdatasync(fh)

    def fallocate(self, path, mode, offset, length, fh):
        self._planned("fallocate")
        os.posix_fallocate(fh, offset, length)

    def truncate(self, path, length, fh=None):
        os.truncate(self._full(path), length)

    def link(self, target, source):
        os.link(self._full(source), self._full(target), follow_symlinks=False)

    def unlink(self, path):
        os.unlink(self._full(path))

    def rename(self, old, new):
        os.rename(self._full(old), self._full(new))

    def chmod(self, path, mode):
        os.chmod(self._full(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self._full(path), uid, gid)

    def utimens(self, path, times=None):
        os.utime(self._full(path), ns=times)


def main():
    root, mountpoint, plan = sys.argv[1:]
    mfusepy.FUSE(
        PassThrough(root, plan), mountpoint, foreground=True, direct_io=True, fsname="uringblob-test"
    )


if __name__ == "__main__":
    main()
