"""What an error of ``obstore`` means: which system error it is, whether it was carried out, and what to do.

``obstore`` gives its errors as text: a sentence, the server's answer in it, and the client's state below.
Where that text has another form one day, the errno is EIO and the request may have been carried out.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from uringblob.errors import errno_name
from uringblob.remote.bucket import BucketError

_STATUS: Final = re.compile(r"status code: (\d{3})([^:<\n]*)")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_RETRIES: Final = re.compile(r"\bretries: (\d+)")
_KIND: Final = re.compile(r"\bkind: (Connect|Timeout)\b")
_NO_BUCKET: Final = re.compile(
    r"NoSuchBucket|ContainerNotFound|container does not exist|bucket does not exist", re.IGNORECASE
)
_NO_RANGE: Final = re.compile(r"status code: 416|Invalid range|non-partial response")
_FULL: Final = re.compile(
    r"Quota\w*Exceeded|InsufficientStorage|StorageFull|XMinioStorageFull", re.IGNORECASE
)

_CREDENTIALS: Final = "check the credentials, and that they may read, list, write and delete here"
_LATER: Final = "the server's log says why; try again"
#: HTTP status: errno, and what to do.
_BY_STATUS: Final = {
    400: (errno.EINVAL, "check the endpoint, the region and the options of the URL"),
    401: (errno.EACCES, _CREDENTIALS),
    403: (errno.EACCES, _CREDENTIALS),
    404: (errno.ENOENT, "make the bucket first, or correct its name or the endpoint"),
    409: (errno.EBUSY, "another request for this object was under way: try again"),
    429: (errno.EBUSY, "the server asks for fewer requests: try again later"),
    501: (errno.ENOTSUP, "the server does not know this request: use another server, or a newer one"),
    503: (errno.EBUSY, "the server is down or asks for fewer requests: try again later"),
    507: (errno.ENOSPC, "delete blobs, or give the server more room, and try again"),
}


def no_bucket(error: BaseException) -> bool:
    """Whether the bucket itself is missing, and not the object."""
    return _NO_BUCKET.search(str(error)) is not None


def is_conflict(error: BaseException) -> bool:
    """Whether the server answered 409: a request on the same key was under way, and nothing is settled."""
    found = _STATUS.search(str(error))
    return found is not None and found[1] == "409"


def no_range(error: BaseException) -> bool:
    """Whether the bytes asked for are not in the object, or the server gives whole objects only."""
    return _NO_RANGE.search(str(error)) is not None


def bucket_error(error: BaseException, what: str, *, changes: bool) -> BucketError:
    """Return ``error`` as the :class:`BucketError` of a request.

    :param what: the request, for people: ``s3://bucket/prefix: PUT log/7``.
    :param changes: it changes the bucket if it is carried out.
    """
    number, reason, remedy, refused = _explain(error)
    retries = _RETRIES.search(str(error))
    # A try before this one may have been carried out, its answer lost.
    first = retries is not None and retries[1] == "0"
    return BucketError(
        number,
        f"{what}: {errno_name(number)}: {reason}: {remedy}",
        maybe_done=changes and not (refused and first),
    )


def no_answer(what: str, seconds: float, *, changes: bool) -> BucketError:
    """Return the error of a request that did not end in ``seconds``."""
    number = errno.ETIMEDOUT
    text = (
        f"{what}: {errno_name(number)}: no answer in {seconds:g} s: look after the server and the network, and "
        "try again; option timeout= of the URL waits longer"
    )
    return BucketError(number, text, maybe_done=changes)


def _explain(error: BaseException) -> tuple[int, str, str, bool]:
    """Return errno, reason, what to do, and whether the last try was certainly not carried out."""
    text = str(error)
    status, code, kind = _STATUS.search(text), _CODE.search(text), _KIND.search(text)
    if status is not None:
        number = int(status[1])
        reason = f"the server answered {number}{status[2].rstrip()}" + (f" ({code[1]})" if code else "")
        if _FULL.search(text):
            return errno.EDQUOT, reason, "delete blobs, or raise the quota, and try again", number < 500
        known, remedy = _BY_STATUS.get(number, (errno.EIO, _LATER))
        return known, reason, remedy, 400 <= number < 500
    if kind is not None and kind[1] == "Timeout":
        return errno.ETIMEDOUT, "no answer in time", "look after the server and the network, try again", False
    if kind is not None:
        remedy = "is the server running, and the endpoint right?"
        number = errno.ECONNREFUSED if "ConnectionRefused" in text else errno.EHOSTUNREACH
        return number, "no connection", remedy, True
    if isinstance(error, NotImplementedError):
        return errno.ENOTSUP, _first_line(text), "use another server", True
    if "HTTP error" in text:
        return (
            errno.ECONNRESET,
            "the connection broke",
            "look after the server and the network, try again",
            False,
        )
    return errno.EIO, _first_line(text), _LATER, False


def _first_line(text: str) -> str:
    return text.partition("\n")[0]
