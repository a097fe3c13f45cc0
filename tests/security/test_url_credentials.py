"""Credentials in a server's URL, and keys, are sent and never shown: not by any logger, error, repr or record."""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from test_environment_secrets import everything_of

from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.engines.addresses import Address
from stars_guard.engines.vllm_client import Servers, parse_options
from stars_guard.errors import InputError, StarsGuardError
from stars_guard.scorers.http import HttpOptions, HttpScorer
from stars_guard.scorers.vllm_pooling import VllmPoolingOptions

SEEN: list[tuple[str, dict[str, str]]] = []


class Echo(BaseHTTPRequestHandler):
    """Answers with all that it was asked, in its headers too, and remembers it."""

    status = 200

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        SEEN.append((self.path, dict(self.headers)))
        body = json.dumps({"score": 0.5}).encode()
        self.send_response(type(self).status)
        self.send_header("Location", self.path)
        self.send_header("X-Was", self.headers.get("Authorization", ""))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer  # noqa: N815

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def passage() -> Passage:
    return Passage(call_id="c", messages=(Message("user", "?"),), accepted="", segment="x")


WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=10, max_size=14).map(lambda text: f"zz{text}zz")
SHORT = st.sampled_from(["qzj", "pw9"])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    user=WORD | st.just(""),
    password=WORD | SHORT,
    folder=WORD,
    key=WORD | SHORT,
    token=WORD,
    status=st.sampled_from([200, 404, 307]),
)
async def test_what_is_secret_in_a_request_is_sent_and_never_shown(
    port: int,
    caplog: pytest.LogCaptureFixture,
    user: str,
    password: str,
    folder: str,
    key: str,
    token: str,
    status: int,
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    SEEN.clear()
    Echo.status = status
    url = f"http://{user}:{password}@127.0.0.1:{port}/{folder}?key={key}#{key}"
    shown: list[str] = []

    scorer = HttpScorer(url, "{answer}", "score", headers={"X-Token": SecretStr(token)}, retries=0)
    try:
        await scorer.score([passage()])
    except StarsGuardError as exc:
        shown.append(everything_of(exc))
    shown += [repr(scorer), scorer.identity["url"].replace(folder, "")]
    await scorer.aclose()
    path, headers = SEEN.pop()
    basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    assert (path, headers["Authorization"], headers["X-Token"]) == (f"/{folder}?key={key}", basic, token)
    options = HttpOptions(type="http", name="h", url=url, body="{answer}", score="s", reject_above=1)
    shown.append(repr(options).replace(folder, ""))

    made = parse_options({"base_url": url, "api_key": token, "retries": 0})
    servers = Servers(made)
    try:
        await servers.get_json("/v1/models")
    except StarsGuardError as exc:
        shown.append(everything_of(exc))
    shown += [repr(made), repr(servers.replicas), servers.shown]
    await servers.aclose()
    path, headers = SEEN.pop()
    assert (path, headers["Authorization"]) == (f"/{folder}/v1/models?key={key}", basic)

    keyed = Servers(parse_options({"base_url": f"http://127.0.0.1:{port}/v1", "api_key": token, "retries": 0}))
    try:
        await keyed.get_json("/v1/models")
    except StarsGuardError as exc:
        shown.append(everything_of(exc))
    await keyed.aclose()
    path, headers = SEEN.pop()
    assert (path, headers["Authorization"]) == ("/v1/models", f"Bearer {token}")

    logged = "\n".join(f"{record.name} {record.getMessage()} {record.args}" for record in caplog.records)
    assert "HTTP Request" in logged
    sent = [secret for secret in (user, password, folder, key, token, basic.split()[1]) if secret]
    for secret in sent:
        assert secret not in "\n".join(shown)
        # what a server sends back is looked for by its value, which has to be long enough for that
        if len(secret) >= 8:
            assert secret not in logged or secret == folder, secret
    # old versions log more under this name
    requests = [line for record in caplog.records if (line := record.getMessage()).startswith("HTTP Request")]
    assert len(requests) == 3
    for line in requests:
        assert not [secret for secret in sent if secret in line], line


@pytest.mark.parametrize(
    "url", ["http://", "http://:zzsecretzz@", "http://h:zzsecretzz", "ftp://zzsecretzz", "http://a\nb"]
)
def test_what_is_not_a_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as plain:
        Address.of(url)
    with pytest.raises(InputError) as options:
        parse_options({"base_url": url})
    with pytest.raises(ValueError, match="base_url") as judge:
        VllmPoolingOptions(type="vllm_pooling", name="n", model="m", base_url=url, reject_above=1)
    for info in (plain, options, judge):
        assert "zzsecretzz" not in everything_of(info.value)


async def test_the_record_names_a_server_without_its_credentials(port: int, embedded_model: Any) -> None:
    judge = VllmPoolingOptions(
        type="vllm_pooling",
        name="n",
        model="embedded:reward",
        weight=1.0,
        base_url=f"http://user:zzsecretzz@127.0.0.1:{port}/zzfolderzz/v1?key=zzkeyzz",
    )
    assert "zzsecretzz" not in repr(judge)
    assert "zzkeyzz" not in repr(judge)
    scorer = await judge.load()
    assert scorer.identity["server"] == f"http://127.0.0.1:{port}"
    await scorer.aclose()
