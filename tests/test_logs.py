"""Each record of the logger "uringblob" has an event and its fields, and the list of them is whole."""

from __future__ import annotations

import ast
import errno
import logging
from pathlib import Path

import pytest

import uringblob
from uringblob import BlobGuid, FileBlobStore, logs
from uringblob.errors import BlobStoreIOError
from uringblob.store.io.file_io import ErrorContext

SOURCE = Path(uringblob.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def log_calls():
    """Every call of the logger in the source, with the names of its extras."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "logger"
            ):
                extra = next((key.value for key in node.keywords if key.arg == "extra"), None)
                assert isinstance(extra, ast.Dict), f"{path}:{node.lineno}: a record without extra={{...}}"
                fields = dict(zip([key.value for key in extra.keys], extra.values, strict=True))
                yield f"{path.name}:{node.lineno}", fields


@pytest.mark.one_interpreter
def test_every_record_has_an_event_and_only_fields_that_are_listed():
    for place, fields in log_calls():
        assert isinstance(fields.get("event"), ast.Constant), place
        assert set(fields) - {"event"} <= set(logs.FIELDS), place


@pytest.mark.one_interpreter
def test_every_event_and_field_that_is_listed_exists():
    calls = list(log_calls())
    assert {fields["event"].value for _, fields in calls} == set(logs.EVENTS)
    assert {name for _, fields in calls for name in fields} - {"event"} == set(logs.FIELDS)


def test_nobody_else_makes_a_logger():
    users = {path.name for path in SOURCE.rglob("*.py") if "getLogger" in path.read_text("utf-8")}
    assert users == {"logs.py"}


def test_opening_is_told_at_level_info(store_path, caplog):
    with caplog.at_level(logging.INFO, "uringblob"), FileBlobStore.open(store_path, engine="pread"):
        pass
    (record,) = caplog.records
    assert (record.event, record.path, record.engine, record.blobs) == ("opened", store_path, "pread", 0)


def test_poison_is_told_once_with_errno_guid_and_offset(store_path, caplog):
    guid = BlobGuid.random()
    with FileBlobStore.open(store_path, page_size=4096) as store:
        medium = store._core._core.file_io
        cause = BlobStoreIOError(errno.EIO, "writing failed", guid=guid, offset=8192)
        medium.poison(cause)
        medium.poison(OSError("a second one"))
        with pytest.raises(uringblob.StorePoisoned) as caught:
            store.write_blob(guid, bytes(4096))
        assert repr(caught.value.__cause__) == repr(cause)
        store.close(flush=False)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    told = (record.event, record.path, record.errno, record.guid, record.offset)
    assert told == ("poisoned", store_path, errno.EIO, str(guid), 8192)


def test_an_io_error_knows_its_offset():
    with pytest.raises(BlobStoreIOError) as caught:
        uringblob.errors.check_rc(-errno.EIO, ErrorContext("reading blob", "a.blobs", 4096))
    assert caught.value.offset == 4096


def test_a_fallback_is_told_with_stage_and_errno(store_path, caplog, monkeypatch):
    from uringblob import _native

    monkeypatch.setattr(_native, "lib", None)
    monkeypatch.setattr(_native, "unavailable_reason", "left out for this test")
    monkeypatch.delenv("URINGBLOB_ENGINE", raising=False)
    with FileBlobStore.open(store_path, page_size=4096):
        pass
    (record,) = [record for record in caplog.records if record.event == "engine_fallback"]
    assert (record.path, record.engine, record.stage, record.errno) == (store_path, "pread", "import", 0)
    assert "left out for this test" in record.getMessage()
