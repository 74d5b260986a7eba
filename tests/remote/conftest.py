"""Servers that speak S3, once for all tests of a process, and what the tests reach them with."""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys

import pytest

from cli.conftest import guids, run, store  # noqa: F401 - fixtures of commands
from remote import servers

NEEDED = ("obstore", "moto", "flask")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if sys.version_info < (3, 11):
    REASON = "n/a: obstore needs Python 3.11"
else:
    REASON = f"missing: {', '.join(MISSING)}; pip install 'uringblob[test-buckets]'" if MISSING else ""
CEPH = os.environ.get("URINGBLOB_CEPH")
NO_CEPH = "n/a: no Ceph gateway; 'make test-ceph' starts one"

if not REASON:
    # The client's threads and their descriptors live as long as the process: before any test counts them.
    from obstore.store import MemoryStore

    MemoryStore().put("warm", b"up")


@pytest.fixture
def obstore_here():
    if REASON:
        pytest.skip(REASON)


@pytest.fixture(scope="session")
def moto_server():
    if REASON:
        pytest.skip(REASON)
    server = servers.Moto()
    yield server
    server.kill()


@pytest.fixture
def credentials(monkeypatch):
    for name, value in servers.KEY.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def moto(moto_server, credentials):
    return moto_server


@pytest.fixture
def prefix():
    """A prefix of this test's own: servers live longer than a test."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.ceph)])
def s3_port(request, moto):
    """The port of each server that a connection leads to."""
    if request.param == "moto":
        return moto.port
    if CEPH is None:
        pytest.skip(NO_CEPH)
    return int(CEPH.rpartition(":")[2])


@pytest.fixture(params=["memory", "moto", pytest.param("ceph", marks=pytest.mark.ceph)])
def server_url(request, obstore_here, credentials, prefix):
    """The URL of a prefix on each server."""
    if request.param == "memory":
        return "memory://"
    if request.param == "moto":
        return f"s3://bucket/{prefix}?endpoint={request.getfixturevalue('moto').endpoint}"
    if CEPH is None:
        pytest.skip(NO_CEPH)
    return f"s3://bucket/{prefix}?endpoint={CEPH}"
