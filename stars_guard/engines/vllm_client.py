"""Talking to vLLM servers: one client, bounded retries of what is safe, replicas that may come and go."""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from stars_guard.engines.addresses import Address, quiet_about
from stars_guard.engines.loopback import is_loopback
from stars_guard.engines.model_thread import leave_a_core
from stars_guard.engines.options import read_options
from stars_guard.errors import BackendError, BackendUnavailable

__all__ = ["Replica", "Seat", "ServerOptions", "Servers", "by_token_id", "parse_options", "token_ids"]

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers before the first token after which the same request may be sent again."""

_ID = "token_id:"
"""What a server writes before a token's id in the place of its text."""


def _without_version(url: str) -> str:
    place, mark, query = url.partition("?")
    return place.rstrip("/").removesuffix("/v1") + mark + query


class ServerOptions(BaseModel):
    """How servers are reached.

    Attributes:
        base_url: one or several, such as ``http://127.0.0.1:8000``; a trailing ``/v1`` is taken off. ``localhost:8000``
            is http, for servers on this machine.
        tokenizer: directory or name, where it is not the model's.
        timeout: seconds without a byte from the server.
        connect_timeout: seconds until a connection must stand.
        retries: how often a request is sent again before its first token, over all replicas.
        rest: seconds that a replica which failed is left alone.
        verify: False, or the path of a CA bundle.
        client_cert: path of a PEM file with the client's certificate and key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: tuple[str, ...] = Field(min_length=1, repr=False)
    api_key: SecretStr | None = None
    tokenizer: str | None = None
    timeout: float = Field(120.0, gt=0)
    connect_timeout: float = Field(5.0, gt=0)
    retries: int = Field(3, ge=0, le=20)
    rest: float = Field(10.0, ge=0)
    verify: bool | Path = True
    client_cert: Path | None = None
    max_connections: int = Field(512, ge=1)
    priority: int | None = None
    cache_salt: str | None = Field(None, repr=False)

    @field_validator("base_url", mode="before")
    @classmethod
    def _as_urls(cls, value: Any) -> Any:
        if not isinstance(value, str | list | tuple):
            return value
        urls = [value] if isinstance(value, str) else value
        return tuple(_without_version(_with_scheme(str(url).strip())) for url in urls)

    @field_validator("base_url")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            Address.of(url)
            if (httpx.URL(url).port or 0) > 65535:
                raise ValueError("the URL's port is above 65535")
        return urls


def _with_scheme(url: str) -> str:
    """A server's URL. Without a scheme it is http, for this machine alone, as a key may be sent there."""
    if "://" in url:
        return url
    try:
        near = is_loopback(httpx.URL(f"http://{url}").host)
    except (httpx.InvalidURL, ValueError):
        raise ValueError("a server's URL looks like http://host:8000") from None
    if not near:
        raise ValueError("the URL of a server on another machine begins with http:// or https://")
    return f"http://{url}"


def by_token_id(top: Mapping[str, float]) -> dict[int, float]:
    """The log probabilities of a place by token id, where the server was asked for ``return_tokens_as_token_ids``."""
    return {int(name.removeprefix(_ID)): value for name, value in top.items() if name.startswith(_ID)}


def token_ids(names: Sequence[str]) -> list[int]:
    """The ids of generated tokens, where the server was asked for ``return_tokens_as_token_ids``."""
    return [int(name.removeprefix(_ID)) for name in names if name.startswith(_ID)]


def parse_options(options: Mapping[str, Any]) -> ServerOptions:
    """Check a server's options. Raises what `read_options` does."""
    return read_options(ServerOptions, options, "the vLLM server")


@dataclass(slots=True, eq=False)
class Replica:
    """One server. ``busy`` calls use it now; until ``rests_until`` (monotonic seconds) it is left alone."""

    address: Address
    busy: int = 0
    rests_until: float = 0.0

    @property
    def url(self) -> str:
        """What may be shown of its URL: scheme, host and port."""
        return self.address.shown

    def broke_off(self, why: str = "") -> BackendUnavailable:
        """The error where its answer ended before its end."""
        return BackendUnavailable(f"the vLLM server {self.url} broke off{why}", hint="see the server's log")


class Servers:
    """Replicas of one model behind one connection pool."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self.replicas = [Replica(Address.of(url)) for url in options.base_url]
        if any(is_loopback(httpx.URL(replica.url).host) for replica in self.replicas):
            leave_a_core()
        if options.api_key is not None:
            quiet_about(options.api_key.get_secret_value())
        headers = {"Authorization": f"Bearer {options.api_key.get_secret_value()}"} if options.api_key else {}
        self._client = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(options.timeout, connect=options.connect_timeout, pool=options.timeout),
            limits=httpx.Limits(max_connections=options.max_connections, max_keepalive_connections=64),
            verify=_tls(options),
        )

    def pick(self, tried: Sequence[Replica] = ()) -> Replica:
        """The replica with the fewest calls among those that do not rest. If all do, the one whose rest ends first.

        Args:
            tried: where the request has failed, once for each time; those that failed less often come first.
        """
        now = time.monotonic()
        return min(self.replicas, key=lambda r: (max(0.0, r.rests_until - now), tried.count(r), r.busy))

    def failed(self, replica: Replica) -> None:
        """Leave a replica alone for a while."""
        replica.rests_until = time.monotonic() + self.options.rest

    @asynccontextmanager
    async def post(
        self, path: str, body: Mapping[str, Any], *, seat: Seat | None = None
    ) -> AsyncGenerator[tuple[httpx.Response, Replica], None]:
        """Send a request, again while that is safe: as long as no server has begun to answer.

        A request that failed is sent to another replica, if there is one that does not rest. Leaving the context closes
        the connection, which makes vLLM abort the request.

        Args:
            seat: of the session that asks; it moves to the replica that answers. None takes one for this request.

        Yields:
            The response and who gives it. If the answer ends before its end, raise what `Replica.broke_off` makes.

        Raises:
            BackendUnavailable: no server can be reached, or the one that answered broke off.
            BackendError: the server refuses the request, or the connections are closed.
        """
        own = seat or Seat(self)
        try:
            response, answering = await self._send(own, "POST", path, body=body, retries=self.options.retries)
            try:
                yield response, answering
            except httpx.TransportError as exc:
                self.failed(answering)
                raise answering.broke_off(f": {type(exc).__name__}") from exc
            finally:
                await response.aclose()
        finally:
            if seat is None:
                own.leave()

    async def get_json(self, path: str) -> Any:
        """A small document that any server may give; each is asked at least once. Raises as `post` does."""
        seat = Seat(self)
        try:
            response, _ = await self._send(seat, "GET", path, retries=max(self.options.retries, len(self.replicas) - 1))
            try:
                await response.aread()
                return response.json()
            finally:
                await response.aclose()
        finally:
            seat.leave()

    async def _send(
        self, seat: Seat, method: str, path: str, *, retries: int, body: Mapping[str, Any] | None = None
    ) -> tuple[httpx.Response, Replica]:
        """The response, and who gives it. Two requests of one session may be under way, so its seat does not say."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(retries + 1),
            wait=wait_random_exponential(0.2, 2.0),
            retry=retry_if_exception_type(BackendUnavailable),
            reraise=True,
        )
        tried: list[Replica] = []
        async for attempt in retrying:
            with attempt:
                asked = seat.replica
                try:
                    return await self._send_once(asked, method, path, body), asked
                except BackendUnavailable:
                    self.failed(asked)
                    tried.append(asked)
                    # another request of this session may have moved it meanwhile
                    if seat.replica in tried:
                        seat.move(tried)
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _send_once(
        self, replica: Replica, method: str, path: str, body: Mapping[str, Any] | None
    ) -> httpx.Response:
        if self._client.is_closed:
            raise BackendError("the connections to the vLLM server are closed", hint="load the backend again")
        try:
            request = self._client.build_request(method, json=body, **replica.address.request(path))
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as exc:
            raise BackendUnavailable(
                f"the vLLM server {replica.url} cannot be reached: {type(exc).__name__}",
                hint="start it, or check base_url",
            ) from exc
        if response.is_success:
            return response
        await response.aclose()
        if response.status_code in BUSY:
            raise BackendUnavailable(f"the vLLM server {replica.url} answered {response.status_code}")
        raise _refused(replica.url, response.status_code)

    @property
    def shown(self) -> str:
        """The servers, for the record."""
        return ", ".join(replica.url for replica in self.replicas)

    async def aclose(self) -> None:
        """Close all connections. May be called twice."""
        await self._client.aclose()


class Seat:
    """Where the requests of one session go: to one replica, which has its prefix in its cache, until that fails."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers
        self._taken = True
        self.replica = servers.pick()
        self.replica.busy += 1

    def move(self, tried: Sequence[Replica]) -> None:
        """Go to another replica, as `Servers.pick` says."""
        if self._taken:
            self.replica.busy -= 1
            self.replica = self._servers.pick(tried)
            self.replica.busy += 1

    def leave(self) -> None:
        """Send nothing more. May be called twice."""
        if self._taken:
            self._taken = False
            self.replica.busy -= 1


def _tls(options: ServerOptions) -> ssl.SSLContext | bool:
    if options.verify is False:
        return False
    if options.verify is True and options.client_cert is None:
        return True
    context = ssl.create_default_context(cafile=None if options.verify is True else str(options.verify))
    if options.client_cert is not None:
        context.load_cert_chain(str(options.client_cert))
    return context


def _refused(where: str, status: int) -> BackendError:
    hints = {
        401: "set api_key",
        403: "set api_key",
        404: "check base_url, and that the server's model is the one named (--served-model-name)",
        400: "the server's log says why; priority needs --scheduling-policy priority",
    }
    return BackendError(f"the vLLM server {where} answered {status}", hint=hints.get(status, "see the server's log"))
