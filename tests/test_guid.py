import pickle
import uuid

import pytest

from uringblob.guid import BlobGuid, guid_bytes

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


@pytest.mark.parametrize("value", [TEXT, 16, None, bytearray(16), memoryview(RAW), [0] * 16])
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
