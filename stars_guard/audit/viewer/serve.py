"""Serving the page until the user interrupts."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

import uvicorn

from stars_guard.audit.store import AuditStore
from stars_guard.audit.viewer.app import make_app
from stars_guard.engines.loopback import is_loopback
from stars_guard.errors import InputError

__all__ = ["serve"]

_SHORTEST_TOKEN = 16


def serve(
    store: AuditStore, *, host: str, port: int, token: str | None, langsmith: str | None, say: Callable[[str], None]
) -> None:
    """Serve the page. Blocks.

    Args:
        host: a name or address of this machine. One that is not loopback needs a token.
        port: 0 takes a free one.
        token: None makes one where one is needed.
        say: gets the page's address.

    Raises:
        InputError: the address cannot be used, or the token is too short.
    """
    if token is not None and len(token) < _SHORTEST_TOKEN:
        raise InputError(f"the token is shorter than {_SHORTEST_TOKEN} characters", hint="leave it out to get one")
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    app = make_app(store, token=token, langsmith=langsmith)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as exc:
        raise InputError(f"cannot serve on {host} port {port}: {exc.strerror}", hint="choose --host or --port") from exc
    with listener:
        name = f"[{host}]" if ":" in host else host
        say(f"http://{name}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else ""))
        config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=1, ws="none")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            return
