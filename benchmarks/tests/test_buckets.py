"""The store in a bucket and bare obstore do the same work against the benchmark's server."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from uringblob_bench.contenders import s3_server
from uringblob_bench.contenders.buckets import BareObstore, RemoteStore
from uringblob_bench.load import Load, Verb

pytestmark = [
    pytest.mark.one_interpreter,
    pytest.mark.leaks(reason="tokio's runtime lives as long as the process"),
    pytest.mark.skipif(sys.version_info < (3, 11), reason="n/a: obstore needs Python 3.11"),
    pytest.mark.skipif(importlib.util.find_spec("obstore") is None, reason="obstore is not installed"),
]


@pytest.fixture(scope="module")
def endpoint():
    with s3_server.running() as endpoint:
        yield endpoint


@pytest.mark.parametrize("kind", [BareObstore, RemoteStore])
@pytest.mark.parametrize("load", [Load(Verb.COMMIT, 1, 4), Load(Verb.READ, 4)], ids=str)
def test_a_turn_moves_whole_frames(kind, load, params, workdir, endpoint):
    contender = kind(params, workdir, endpoint)
    contender.prepare()
    (sample,) = contender.turn([load], 0.05)
    assert sample.frames > 0
    assert sample.frames % load.frames == 0
    assert contender.settings()["durability"]
