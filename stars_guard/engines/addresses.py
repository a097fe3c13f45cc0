"""URLs of servers. What may be secret in one is sent and never shown: user, password, path and query."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from stars_guard.concealing import conceal, concealed

__all__ = ["Address", "quiet_about"]

_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy", "httpcore.socks")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where requests go.

    httpx logs the URL of each request. So it gets one without secrets, and the real path and query as the request's
    target (httpx's extension of this name); user and password become a header.

    Attributes:
        shown: scheme, host and port, for logs, errors and the record.
        headers: what each request needs.
    """

    shown: str
    headers: Mapping[str, str] = field(repr=False)
    _path: str = field(repr=False)
    _query: str = field(repr=False)

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            ValueError: it is not an HTTP URL with a host. The text does not show it.
        """
        import httpx  # here, because a policy without servers needs none of it

        try:
            read = httpx.URL(url)
        except (httpx.InvalidURL, TypeError, ValueError):
            read = None
        if read is None:
            raise ValueError("not a URL")
        if read.scheme not in ("http", "https"):
            raise ValueError("the URL should begin with http:// or https://")
        if not read.host:
            raise ValueError("the URL has no host")
        headers = {}
        if read.userinfo:
            pair = f"{read.username}:{read.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
            quiet_about(*headers.values(), read.password or read.username)
        # a long part of a path may be a token; a short one is a word, which errors may hold too
        quiet_about(
            *(value for _, value in read.params.multi_items()), *(p for p in read.path.split("/") if len(p) > 15)
        )
        shown = f"{read.scheme}://{read.netloc.decode('ascii')}"
        path, _, query = read.raw_path.decode("ascii").partition("?")
        return cls(shown=shown, headers=headers, _path=path.rstrip("/"), _query=query)

    def request(self, path: str | None = None) -> dict[str, Any]:
        """The arguments ``url``, ``headers`` and ``extensions`` of an httpx request.

        Args:
            path: what follows the URL's own path, such as ``/v1/models``. It is shown. None asks for the URL itself.
        """
        target = self._path + (path if path is not None else "") or "/"
        if self._query:
            target += f"?{self._query}"
        return {
            "url": self.shown + quote(path or "/"),
            "headers": dict(self.headers),
            "extensions": {"target": target.encode("ascii")},
        }


class _Concealing(logging.Filter):
    """Shows names in the place of secrets: a server may send back what was sent, and httpcore logs what it sends."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if (shown := concealed(text)) != text:
            record.msg, record.args = shown, ()
        return True


_filter = _Concealing()


def quiet_about(*secrets: str) -> None:
    """Keep secrets of requests out of errors and of the logs of httpx and httpcore."""
    for secret in secrets:
        for part in (secret, *secret.split()):
            conceal(part, "***")
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)  # once, however often it is added
