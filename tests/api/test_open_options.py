"""One object has the options of `open`, and every `open` shows them."""

from __future__ import annotations

import dataclasses
import inspect
import os

import pytest

from uringblob import AsyncFileBlobStore, FileBlobStore
from uringblob.api.open_options import OpenOptions

OPTIONS = [field.name for field in dataclasses.fields(OpenOptions) if field.init]


@pytest.mark.parametrize("store", [FileBlobStore, AsyncFileBlobStore])
def test_every_open_shows_each_option_and_says_what_it_is(store):
    path, *options = inspect.signature(store.open).parameters.values()
    assert path.name == "path"
    assert [option.name for option in options] == OPTIONS
    assert all(option.kind is inspect.Parameter.KEYWORD_ONLY for option in options)
    for name in ("path", *OPTIONS):
        assert f":param {name}: " in inspect.getdoc(store.open)


def test_an_unknown_option_is_named(store_path):
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'bufers'"):
        FileBlobStore.open(store_path, bufers=3)


def test_a_link_is_followed_once(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "store")
    options = OpenOptions(tmp_path / "link")
    assert options.file == os.path.realpath(tmp_path / "store")
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.file = "another"


def test_the_environment_names_the_engine_where_no_option_does(monkeypatch):
    monkeypatch.setenv("URINGBLOB_ENGINE", "pread")
    assert OpenOptions("store").engine == "pread"
    assert OpenOptions("store", engine="io_uring").engine == "io_uring"
    monkeypatch.setenv("URINGBLOB_ENGINE", "aio")
    with pytest.raises(ValueError, match="URINGBLOB_ENGINE"):
        OpenOptions("store")
