"""The client of vLLM servers, against small servers of our own: retries, replicas, closing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from json_servers import JsonServer

from stars_guard.engines.vllm_client import Seat, Servers, parse_options
from stars_guard.errors import BackendError, BackendUnavailable


class Answering(JsonServer):
    """Says which it is, with one status."""

    def answer(self, body: Any) -> Any:
        return {"from": self.url}


Start = Callable[..., list[Answering]]


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as stack:

        def started(*statuses: int) -> list[Answering]:
            return [stack.enter_context(Answering(status)) for status in statuses]

        yield started


def client(made: list[Answering], **options: Any) -> Servers:
    return Servers(parse_options({"base_url": [server.url for server in made], **options}))


async def ask(servers: Servers, seat: Seat | None = None) -> str:
    async with servers.post("/v1/completions", {"prompt": [1]}, seat=seat) as (response, _):
        await response.aread()
        return str(response.json()["from"])


@pytest.mark.parametrize("rest", [0.0, 60.0])
@pytest.mark.parametrize("good", [0, 1, 2])
async def test_a_retry_asks_another_replica(start: Start, good: int, rest: float) -> None:
    made = start(*(200 if i == good else 503 for i in range(3)))
    servers = client(made, retries=2, rest=rest)
    seat = Seat(servers)
    assert await ask(servers, seat) == made[good].url
    assert all(len(server.bodies) <= 1 for server in made)
    assert seat.replica.url == made[good].url
    # the session stays where it was served
    before = [len(server.bodies) for server in made]
    for _ in range(3):
        await ask(servers, seat)
    assert [len(server.bodies) for server in made] == [n + 3 * (i == good) for i, n in enumerate(before)]
    seat.leave()
    seat.leave()
    assert [replica.busy for replica in servers.replicas] == [0, 0, 0]
    await servers.aclose()


async def test_a_replica_that_is_gone_is_passed_over_and_rests(start: Start) -> None:
    made = start(200, 200)
    made[0].shutdown()
    made[0].server_close()
    servers = client(made, retries=1, rest=600)
    for _ in range(4):
        assert await ask(servers) == made[1].url
    assert [replica.busy for replica in servers.replicas] == [0, 0]
    assert await servers.get_json("/version") == {"from": made[1].url}
    await servers.aclose()


async def test_retries_are_over_all_replicas_together(start: Start) -> None:
    made = start(503, 503)
    servers = client(made, retries=3, rest=60)
    with pytest.raises(BackendUnavailable, match="answered 503"):
        await ask(servers)
    assert Counter(len(server.bodies) for server in made) == {2: 2}
    await servers.aclose()


async def test_each_replica_is_asked_what_it_serves_even_without_retries(start: Start) -> None:
    made = start(503, 503, 200)
    servers = client(made, retries=0)
    assert await servers.get_json("/v1/models") == {"from": made[2].url}
    await servers.aclose()


async def test_what_a_server_refuses_is_not_asked_again(start: Start) -> None:
    made = start(400, 400)
    servers = client(made, retries=3)
    with pytest.raises(BackendError, match="answered 400"):
        await ask(servers)
    assert sum(len(server.bodies) for server in made) == 1
    await servers.aclose()


async def test_closed_connections_say_so(start: Start) -> None:
    servers = client(start(200))
    await servers.aclose()
    await servers.aclose()
    with pytest.raises(BackendError, match="closed"):
        await ask(servers)
