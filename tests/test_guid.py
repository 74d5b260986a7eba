import hashlib
import os
import pickle
import re
import uuid

import pytest

from uringblob.guid import BlobGuid, guid_bytes, known_guids

RAW = bytes(range(16))
TEXT = "00010203-0405-0607-0809-0a0b0c0d0e0f"


@pytest.mark.parametrize("value", [RAW, uuid.UUID(bytes=RAW), BlobGuid(RAW)])
def test_made_of(value):
    guid = BlobGuid(value)
    assert type(guid) is BlobGuid
    assert isinstance(guid, bytes)
    assert guid == RAW
    assert hash(guid) == hash(RAW)
    assert guid_bytes(value) == RAW
    assert str(guid) == TEXT
    assert guid.uuid == uuid.UUID(bytes=RAW)
    assert repr(guid) == f"BlobGuid('{TEXT}')"


@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_wrong_length(length):
    with pytest.raises(ValueError, match=str(length)):
        BlobGuid(bytes(length))


@pytest.mark.parametrize(
    "text", [TEXT, TEXT.upper(), TEXT.replace("-", ""), str(BlobGuid(RAW)), BlobGuid(RAW).hex()]
)
def test_made_of_its_own_text(text):
    """What is printed can be typed in."""
    guid = BlobGuid(text)
    assert type(guid) is BlobGuid
    assert guid == RAW


NO_GUIDS = ["", "frame 1", TEXT[:-1], f"{TEXT}0", f" {TEXT}", f"{TEXT}\n", f"{{{TEXT}}}", f"urn:uuid:{TEXT}"]
NO_GUIDS += ["0x" + "0" * 30, "0" * 15 + "_" + "0" * 16, "-" * 4 + "0" * 32, "\u0661" * 32, "0" * 16]


@pytest.mark.parametrize("text", NO_GUIDS)
def test_other_texts_are_refused_and_the_way_to_a_guid_is_named(text):
    with pytest.raises(ValueError, match=r"BlobGuid\.of"):
        BlobGuid(text)


#: For ever: stores in the field have these names.
GOLDEN = {
    "": "e3b0c442-98fc-1c14-9afb-f4c8996fb924",
    "frames/0001.raw": "f29eea62-d0f6-01b0-dfb4-1981a30b6cad",
    "caf\u00e9": "850f7dc4-3910-ff89-0f88-79c0ed26fe69",
    "x" * 100_000: "d69e6898-8157-8332-7230-5aaf21f453c8",
    TEXT: "f920f158-3dc9-da3b-c056-9e6e1dc5f231",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_name_of_any_kind_has_one_guid_for_ever(name):
    guid = BlobGuid.of(name)
    assert type(guid) is BlobGuid
    assert str(guid) == GOLDEN[name]


def test_names_that_differ_at_all_have_different_guids():
    assert BlobGuid.of("caf\u00e9") != BlobGuid.of("cafe\u0301")
    assert BlobGuid.of("a") != BlobGuid.of("A")


def test_a_path_that_is_no_utf8_is_hashed_as_its_bytes():
    assert BlobGuid.of(os.fsdecode(b"caf\xe9")) == hashlib.sha256(b"caf\xe9").digest()[:16]


@pytest.mark.parametrize("name", [b"bytes", 7, None])
def test_only_text_is_hashed(name):
    with pytest.raises(TypeError, match="hashes a str"):
        BlobGuid.of(name)


@pytest.mark.parametrize(("value", "hint"), [(TEXT, "BlobGuid(text)"), (16, "a list of them")])
def test_a_wrong_type_names_the_way_out(value, hint):
    with pytest.raises(TypeError, match=re.escape(hint)):
        guid_bytes(value)


@pytest.mark.parametrize("value", [16, None, bytearray(16), memoryview(RAW), [0] * 16])
def test_wrong_type(value):
    with pytest.raises(TypeError):
        BlobGuid(value)
    with pytest.raises(TypeError):
        guid_bytes(value)


def test_the_all_zero_guid_is_legal():
    assert str(BlobGuid(bytes(16))) == "00000000-0000-0000-0000-000000000000"


def test_random_ones_differ_and_are_version_4():
    guids = {BlobGuid.random() for _ in range(100)}
    assert len(guids) == 100
    assert {guid.uuid.version for guid in guids} == {4}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickled(protocol):
    guid = pickle.loads(pickle.dumps(BlobGuid(RAW), protocol))
    assert type(guid) is BlobGuid
    assert guid == RAW


def test_known_ones_are_guids():
    values = [n.to_bytes(16, "big") for n in range(600)]
    made = known_guids(values)
    assert made == values
    assert {type(guid) for guid in made} == {BlobGuid}
