"""URLs of buckets: ``s3://bucket/prefix?endpoint=http://127.0.0.1:7480``, and what each option means.

Credentials are no part of a URL, which is printed, logged and kept in shells' histories: the environment has
them (``AWS_ACCESS_KEY_ID``, ``GOOGLE_APPLICATION_CREDENTIALS``, ``AZURE_STORAGE_ACCOUNT_KEY``, ...), or the
instance's role, or an ``obstore`` store that the caller made.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

#: Scheme: the class of ``obstore.store`` that serves it.
SCHEMES: Final = {
    "s3": "S3Store",
    "s3a": "S3Store",
    "gs": "GCSStore",
    "az": "AzureStore",
    "azure": "AzureStore",
    "memory": "MemoryStore",
}
OPTIONS: Final = ("endpoint", "region", "path_style", "allow_http", "skip_signature", "account", "timeout")
#: Seconds that a request may take in all, however often it is tried.
TIMEOUT: Final = 60.0
_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclasses.dataclass(frozen=True)
class BucketUrl:
    """A bucket, the prefix in it, and how it is reached."""

    scheme: str
    bucket: str
    prefix: str
    endpoint: str | None
    timeout: float
    allow_http: bool
    #: For the class of ``obstore.store``.
    config: dict[str, str | bool]

    @property
    def kind(self) -> str:
        """The name of the class of ``obstore.store`` that serves it."""
        return SCHEMES[self.scheme]

    @property
    def name(self) -> str:
        """For messages: the options are left out."""
        return f"{self.scheme}://{self.bucket}{'/' if self.prefix else ''}{self.prefix}"


def parse_url(url: str) -> BucketUrl:
    """Return what ``url`` says.

    :raises ValueError: it is no such URL; the message names what is wrong.
    """
    parts = urlsplit(url)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme in {"file", ""}:
        raise ValueError(
            f"{shown}: a directory is no bucket (nothing there is flushed to the medium): give the path of a store "
            "file, which FileBlobStore opens"
        )
    if parts.scheme not in SCHEMES:
        raise ValueError(f"{shown}: the scheme must be one of {', '.join(SCHEMES)}")
    if "@" in parts.netloc:
        raise ValueError(f"{shown}: credentials are no part of the URL: set them in the environment")
    if not parts.netloc and parts.scheme != "memory":
        raise ValueError(f"{shown}: the bucket's name is missing: {parts.scheme}://BUCKET/PREFIX")
    if parts.fragment:
        raise ValueError(f"{shown}: what follows a # is no part of a prefix: write it as %23")
    options = _options(shown, parts.query)
    endpoint = options.get("endpoint")
    return BucketUrl(
        parts.scheme,
        parts.netloc,
        check_prefix(unquote(parts.path)),
        endpoint,
        _seconds(shown, options.get("timeout")),
        _may_use_http(shown, endpoint, allowed=_flag(shown, options, "allow_http")),
        _config(shown, SCHEMES[parts.scheme], options),
    )


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` without a slash at either end.

    :raises ValueError: a part of it is empty, ``.`` or ``..``.
    """
    prefix = prefix.strip("/")
    if prefix and {"", ".", ".."} & set(prefix.split("/")):
        raise ValueError(f"the prefix {prefix!r} has a part that is empty, '.' or '..': leave it out")
    return prefix


def _options(shown: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name in options:
        if name not in OPTIONS:
            raise ValueError(
                f"{shown}: unknown option {name!r}: there are {', '.join(OPTIONS)}; credentials are set in the "
                "environment"
            )
    return options


def _config(shown: str, kind: str, options: dict[str, str]) -> dict[str, str | bool]:
    config: dict[str, str | bool] = {}
    endpoint = options.get("endpoint")
    if endpoint:
        config["base_url" if kind == "GCSStore" else "endpoint"] = endpoint.rstrip("/")
    if kind == "S3Store":
        # Servers of one's own have no names for buckets.
        path_style = _flag(shown, options, "path_style") if "path_style" in options else bool(endpoint)
        config["virtual_hosted_style_request"] = not path_style
        if "region" in options or endpoint:
            config["region"] = options.get("region", "us-east-1")
    if "account" in options:
        config["account_name"] = options["account"]
    if _flag(shown, options, "skip_signature"):
        config["skip_signature"] = True
    return config


def _flag(shown: str, options: dict[str, str], name: str) -> bool:
    text = options.get(name, "false").lower()
    if text not in _FLAGS:
        raise ValueError(f"{shown}: {name} must be true or false, not {text!r}")
    return _FLAGS[text]


def _seconds(shown: str, text: str | None) -> float:
    if text is None:
        return TIMEOUT
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 3600:
        raise ValueError(f"{shown}: timeout must be seconds, more than 0 and at most 3600, not {text!r}")
    return seconds


def _may_use_http(shown: str, endpoint: str | None, *, allowed: bool) -> bool:
    """Return whether plain HTTP may be used: only to this machine, unless the URL says so.

    :raises ValueError: the endpoint is no HTTP URL, or plain HTTP to another machine.
    """
    if endpoint is None:
        return allowed
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{shown}: the endpoint must be http://HOST:PORT or https://HOST, not {endpoint!r}")
    if parts.scheme == "http" and not allowed and not _is_this_machine(parts.hostname):
        raise ValueError(
            f"{shown}: the endpoint {endpoint} would carry data in the clear: use https, or add allow_http=true"
        )
    return parts.scheme == "http"


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
