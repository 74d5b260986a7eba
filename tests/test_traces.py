"""The OpenTelemetry observer: a span a call, with what the call did, beside other observers."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import subprocess
import sys
import time

import pytest

trace = pytest.importorskip("opentelemetry.trace", reason="the extra [traces] is not installed")

from uringblob import (  # noqa: E402 - needs the line above
    AsyncFileBlobStore,
    AsyncMemoryBlobStore,
    BlobNotFound,
    FileBlobStore,
    MemoryBlobStore,
    observe,
)
from uringblob.traces import OpenTelemetryObserver  # noqa: E402

PAGE = 4096
GUID = bytes(range(16))


class RecordedSpan(trace.Span):
    """A span in memory; text of exceptions only, for an exception holds its call's buffers."""

    numbers = itertools.count(1)

    def __init__(self, name, attributes, start_time):
        self.name, self.attributes, self.start_time = name, dict(attributes or {}), start_time
        self.parent = trace.get_current_span()
        self.errors, self.status, self.end_time = [], trace.Status(), None
        self.context = trace.SpanContext(1, next(self.numbers), is_remote=False)

    def end(self, end_time=None):
        self.end_time = end_time

    def get_span_context(self):
        return self.context

    def set_attributes(self, attributes):
        self.attributes.update(attributes)

    def set_attribute(self, key, value):
        self.attributes[key] = value

    def add_event(self, name, attributes=None, timestamp=None):
        raise NotImplementedError

    def update_name(self, name):
        self.name = name

    def is_recording(self):
        return self.end_time is None

    def set_status(self, status, description=None):
        assert isinstance(status, trace.Status)
        self.status = status

    def record_exception(self, exception, attributes=None, timestamp=None, escaped=False):
        self.errors.append((type(exception), str(exception)))


class RecordingTracer(trace.Tracer):
    def __init__(self, spans):
        self.spans = spans

    def start_span(self, name, context=None, kind=trace.SpanKind.INTERNAL, attributes=None, links=None,
                   start_time=None, record_exception=True, set_status_on_exception=True):  # fmt: skip
        self.spans.append(RecordedSpan(name, attributes, start_time))
        return self.spans[-1]

    def start_as_current_span(self, *args, **kwargs):
        raise NotImplementedError


class Recorded(trace.TracerProvider):
    """A provider that keeps its spans in memory."""

    def __init__(self):
        self.spans = []

    def get_tracer(self, name, version=None, schema_url=None, attributes=None):
        assert name == "uringblob"
        return RecordingTracer(self.spans)


@pytest.fixture
def recorded():
    return Recorded()


def traced(store, recorded):
    return observe(store, OpenTelemetryObserver(store, recorded))


def test_each_call_is_a_span_with_engine_page_size_bytes_and_outcome(store_path, recorded):
    before_ns = time.time_ns()
    with traced(FileBlobStore.open(store_path, page_size=PAGE, engine="pread"), recorded) as store:
        store.commit([(GUID, bytes(PAGE)), (bytes(16), bytes(PAGE))])
        store.has_blob(GUID)
    commit, has_blob, close = recorded.spans
    assert commit.name == "uringblob.commit"
    assert commit.attributes == {
        "uringblob.engine": "pread",
        "uringblob.page_size": PAGE,
        "uringblob.size_bytes": 2 * PAGE,
        "uringblob.outcome": "ok",
    }
    assert commit.status.is_unset
    assert before_ns <= commit.start_time <= commit.end_time <= time.time_ns()
    assert (has_blob.name, has_blob.attributes["uringblob.size_bytes"]) == ("uringblob.has_blob", 0)
    assert (close.name, close.end_time is None) == ("uringblob.close", False)


@pytest.mark.parametrize("make", [FileBlobStore.open, lambda _, size: MemoryBlobStore(size)])
def test_a_failed_call_has_its_exception_and_no_other(store_path, recorded, make):
    with traced(
        make(store_path, page_size=PAGE) if make == FileBlobStore.open else make(0, PAGE), recorded
    ) as s:
        with pytest.raises(BlobNotFound) as caught:
            s.read_blob(GUID, bytearray(PAGE))
        try:
            raise KeyError("of the program")
        except KeyError:
            s.write_blob(GUID, bytes(PAGE))
    failed, written, _ = recorded.spans
    assert failed.errors == [(BlobNotFound, str(caught.value))]
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert failed.status.description == str(caught.value)
    assert failed.attributes["error.type"] == failed.attributes["uringblob.outcome"] == "BlobNotFound"
    # A call that went well inside the program's own except block has no error.
    assert (written.errors, written.status.is_unset) == ([], True)
    assert "error.type" not in written.attributes


@pytest.mark.parametrize("face", ["file", "memory"])
async def test_the_same_holds_on_an_event_loop(store_path, recorded, face):
    store = (
        AsyncMemoryBlobStore(PAGE)
        if face == "memory"
        else await AsyncFileBlobStore.open(store_path, page_size=PAGE)
    )
    async with traced(store, recorded):
        for call in (store.read_blob(GUID, bytearray(PAGE)), store.write_blob(GUID, b"short")):
            with pytest.raises((BlobNotFound, ValueError)):
                await call
    assert [span.attributes["uringblob.outcome"] for span in recorded.spans] == [
        "BlobNotFound",
        "ValueError",
        "ok",
    ]
    assert [[kind for kind, _ in span.errors] for span in recorded.spans] == [
        [BlobNotFound],
        [ValueError],
        [],
    ]


async def test_a_cancelled_call_is_no_error(recorded):
    class Slow(AsyncMemoryBlobStore):
        async def read_blob(self, guid, dst):
            await asyncio.Event().wait()

    store = traced(Slow(PAGE), recorded)
    call = asyncio.ensure_future(store.read_blob(GUID, bytearray(PAGE)))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    (span,) = recorded.spans
    assert span.attributes["uringblob.outcome"] == "cancelled"
    assert (span.errors, span.status.is_unset) == ([], True)
    await store.aclose()


async def test_the_parent_is_the_span_in_which_the_call_was_made(recorded):
    async def request(store):
        with trace.use_span(RecordedSpan("request", {}, 0)) as parent:
            await store.write_blob(GUID, bytes(PAGE))
            return parent

    async with traced(AsyncMemoryBlobStore(PAGE), recorded) as store:
        parents = await asyncio.gather(request(store), request(store))
    first, second, close = recorded.spans
    assert [first.parent, second.parent] == parents
    assert close.parent is trace.INVALID_SPAN


def test_it_stands_beside_another_observer(recorded):
    class Notes(list):
        def observe(self, operation, *_):
            self.append(operation)

    notes = Notes()
    with traced(MemoryBlobStore(PAGE, observer=notes), recorded) as store:
        store.flush()
    assert notes == ["flush", "close"]
    assert [span.name for span in recorded.spans] == ["uringblob.flush", "uringblob.close"]


def test_without_an_sdk_it_does_nothing():
    store = MemoryBlobStore(PAGE)
    with observe(store, OpenTelemetryObserver(store)):
        store.write_blob(GUID, bytes(PAGE))
        with pytest.raises(BlobNotFound):
            store.read_blob(bytes(16), bytearray(PAGE))


def test_the_library_does_not_import_it():
    code = "import sys, uringblob; print('opentelemetry' in sys.modules, 'uringblob.traces' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_without_the_extra_it_says_which_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", None)
    monkeypatch.delitem(sys.modules, "uringblob.traces")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'uringblob\[traces\]'"):
        importlib.import_module("uringblob.traces")
