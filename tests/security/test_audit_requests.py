"""The page answers whatever it is asked: never with 500, and never by reading without end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from audit_records import RECORDS
from audit_writers import small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres import postgres
from sqlalchemy import text

from stars_guard.audit import AuditStore, MemoryStore, open_store
from stars_guard.audit.sql import SqlStore
from stars_guard.audit.viewer.app import make_app
from stars_guard.calling import portal

__all__ = ["postgres"]

TOKEN = "a token of twenty-odd characters"


@pytest.fixture(params=["memory", "jsonl", "sqlite", "postgresql"], scope="module")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("page")
    kind = request.param
    if kind == "postgresql":
        url = request.getfixturevalue("postgres").database()
    else:
        url = {"memory": "memory://", "jsonl": f"jsonl://{folder}/a", "sqlite": f"sqlite://{folder}/a"}[kind]
    made = open_store(url)
    for record in (*RECORDS, small("x\0y", run_id="r\0un")) if kind != "postgresql" else RECORDS:
        portal.call(lambda record=record: made.append(record))
    yield made
    portal.call(made.aclose)


def ask(
    store: AuditStore,
    method: str = "GET",
    path: str = "/",
    query: bytes = b"",
    headers: list[tuple[bytes, bytes]] | None = None,
    body: list[bytes] | None = None,
    token: str | None = None,
) -> tuple[int, bytes, int]:
    """What the app answers to a request as a server hands it over: status, the beginning of the body, parts read."""
    app = make_app(store, token=token, poll=0.01)
    given = [(b"host", b"127.0.0.1")] if headers is None else headers
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query,
        "root_path": "",
        "headers": given,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8321),
    }
    parts = list(body or [b""])
    read = 0
    said: dict[str, Any] = {"status": 0, "body": b""}
    done = asyncio.Event()

    async def receive() -> dict[str, Any]:
        nonlocal read
        if read < len(parts):
            read += 1
            return {"type": "http.request", "body": parts[read - 1], "more_body": read < len(parts)}
        await done.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            said["status"] = message["status"]
            for name, value in message["headers"]:
                assert b"\n" not in name + value
                assert b"\r" not in name + value
        else:
            said["body"] += message.get("body", b"")
            if not message.get("more_body") or len(said["body"]) > 50:
                done.set()

    async def go() -> None:
        async with asyncio.timeout(20):
            await app(scope, receive, send)  # type: ignore[arg-type]

    asyncio.run(go())
    return said["status"], said["body"], read


FIELDS = (
    *("since", "until", "policy", "judge", "finish", "stage", "run_id", "text", "rejected", "before", "before_id", "?"),
)
ODD = (
    *(
        "\0",
        "x" * 501,
        "x" * 20_000,
        "999999w",
        "0d",
        "0001-01-01",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00+23:59",
    ),
    *("9999-12-31", "2026-W01-1", "20260101", "2026-01-01T24:00", "١٢d", '"', "'", "a" * 64 + " b", "é", "\u202e"),
    *(" ".join(f"w{n}" for n in range(160)), "* ^ NEAR(a b)", "a:b", "-1", "1e999", "NaN", "%", "%00", "["),
)
PATHS = (
    *("/", "/calls", "/calls/", "/calls/a", "/calls/x\0y", "/live", "/events", "/login", "/login/", "/docs", "*"),
    *("/static/page.css", "/static/..", "/static/", "/openapi.json", "", "//", "//x", "/\\x"),
)
NAMES = (b"host", b"cookie", b"authorization", b"last-event-id", b"content-length", b"content-type", b"x")
VALUES = (
    *(b"127.0.0.1", b"[", b"[::1]", b"[::1", b"]", b"localhost:99999999", b"localhost:x", b"a@[", b"::1", b"%5b"),
    *(b"0", b"-1", b"9" * 30, b"9" * 5000, b"1,2,3", b",".join([b"1"] * 2000), b"1@none", b"@", b"stars_guard_page="),
)
HEADERS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.one_of(st.binary(max_size=12), st.sampled_from(VALUES))), max_size=3
)
FIELD = st.tuples(st.sampled_from(FIELDS), st.one_of(st.text(max_size=20), st.sampled_from(ODD)))
QUERIES = st.lists(FIELD, max_size=4).map(lambda query: urlencode(query).encode())
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "X"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.one_of(st.sampled_from(PATHS), st.text(max_size=12).map("/calls/{}".format), st.text(max_size=12)),
    query=st.one_of(QUERIES, st.binary(max_size=20)),
    headers=HEADERS,
    method=st.one_of(st.just("GET"), METHODS),
    body=st.lists(st.binary(max_size=30), max_size=3),
    token=st.sampled_from([None, TOKEN]),
    let_in=st.booleans(),
)
def test_no_request_is_an_error_of_ours(
    store: AuditStore,
    path: str,
    query: bytes,
    headers: list[tuple[bytes, bytes]],
    method: str,
    body: list[bytes],
    token: str | None,
    let_in: bool,
) -> None:
    if let_in:
        headers = [(b"host", b"127.0.0.1"), (b"authorization", f"Bearer {TOKEN}".encode()), *headers]
    status, _, _ = ask(store, method, path, query, headers, body, token)
    assert 200 <= status < 500


@pytest.mark.parametrize("field", ["since", "until"])
@pytest.mark.parametrize("time", ["999999w", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "soon", "9" * 400])
@pytest.mark.parametrize("path", ["/", "/calls", "/live", "/events"])
def test_times_that_are_none_are_said_to_be_none(field: str, time: str, path: str) -> None:
    status, body, _ = ask(MemoryStore(), path=path, query=urlencode({field: time}).encode())
    assert status == 400
    assert b"is not a time" in body


@pytest.mark.parametrize("host", [b"[", b"[::1", b"]", b"127.0.0.1:x", b"127.0.0.1:99999999", b"\xff[", b"a@[b"])
@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("path", ["/", "/calls/", "/login", "/static/page.css"])
def test_a_broken_host_is_the_asker_s_error(host: bytes, token: str | None, path: str) -> None:
    given = [(b"host", host), (b"authorization", f"Bearer {TOKEN}".encode())]
    assert ask(MemoryStore(), path=path, headers=given, token=token)[0] == 400


@pytest.mark.parametrize("token", [None, TOKEN])
def test_login_reads_no_more_than_a_token(token: str | None) -> None:
    status, _, read = ask(MemoryStore(), "POST", "/login", body=[b"token=" + b"x" * 1000] * 500, token=token)
    assert (status, read) == (413, 5)
    status, _, _ = ask(MemoryStore(), "POST", "/login", body=[urlencode({"token": TOKEN}).encode()], token=TOKEN)
    assert status == 303


@pytest.mark.parametrize("path", ["/", "/calls", "/calls/one", "/live", "/static/page.css"])
def test_no_other_address_reads_a_body(path: str) -> None:
    status, _, read = ask(MemoryStore(), "POST", path, body=[b"x" * 1000] * 500)
    assert status in (404, 405)
    assert read <= 1


def test_a_list_that_was_changed_by_hand_is_shown_as_it_is(tmp_path: Path) -> None:
    store = open_store(f"sqlite://{tmp_path}/a.db")
    assert isinstance(store, SqlStore)
    portal.call(lambda: store.append(small("one")))
    for statement in ("started_at = 'soon'", "started = 1e300", "started = -1e300", "seconds = 1e300"):
        with store._engine.begin() as connection:
            connection.execute(text(f"UPDATE calls SET {statement}"))
        assert ask(store, path="/")[0] == 200
        assert ask(store, path="/calls")[0] == 200
    portal.call(store.aclose)
