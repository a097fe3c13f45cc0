"""Judges that need no model: REST classifiers, personal data, your own code; and when each is asked."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from conftest import USER, guard, policy, rewarding, words

from stars_guard.audit import MemoryStore
from stars_guard.calling.judge_loading import load_cascade
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Passage
from stars_guard.errors import PolicyError, ScorerError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers import Judge, Rating, Scorer
from stars_guard.scorers._breaker import Breaker
from stars_guard.scorers.cascade import Cascade
from stars_guard.scorers.pii import PiiScorer
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend


def passage(answer: str, **more: Any) -> Passage:
    return Passage(
        call_id="c", messages=(Message("system", "s"), Message("user", "ask")), accepted="", segment=answer, **more
    )


class Service:
    """A real HTTP server on this machine; ``statuses`` are given before it works."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], Any]] = []
        self.statuses: list[int] = []
        self.delay = 0.0
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                service.seen.append((dict(self.headers), body))
                time.sleep(service.delay)
                status = service.statuses.pop(0) if service.statuses else 200
                answer = str(body.get("text", ""))
                reply = (
                    b"{}"
                    if "empty" in answer
                    else json.dumps({"results": [{"score": answer.count("bad"), "flag": "bad" in answer}]}).encode()
                )
                self.send_response(status)
                self.end_headers()
                self.wfile.write(b"<html>" if "html" in answer else reply)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://user:pw@127.0.0.1:{self.server.server_address[1]}/classify?key=sk-secret"


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.server.shutdown()
    made.server.server_close()


def http_judge(service: Service, **more: Any) -> dict[str, Any]:
    return {
        "name": "rest",
        "type": "http",
        "url": service.url,
        "body": {"text": "{answer}", "n": 1, "all": "{messages}"},
        "score": "results[0].score",
        "reject_above": 0.5,
        "headers": {"X-Key": "sk-secret"},
        **more,
    }


async def test_http_fills_in_reads_out_and_shows_no_secret(service: Service) -> None:
    loaded = load_policy(policy(judges=[http_judge(service)]))
    cascade = await load_cascade(loaded)
    service.statuses = [503]
    texts = ["fine", "bad {prompt}", "a bad bad thing"]
    judgements = await cascade.judge([passage(text) for text in texts])
    assert [j.scores[0].value for j in judgements] == [0.0, 1.0, 2.0]
    assert [j.veto is not None for j in judgements] == [False, True, True]
    assert len(service.seen) == 4
    headers, body = next(seen for seen in service.seen if seen[1]["text"] == "bad {prompt}")
    assert headers["X-Key"] == "sk-secret"
    assert body["all"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "ask"},
        {"role": "assistant", "content": "bad {prompt}"},
    ]
    for shown in (repr(loaded), loaded.model_dump_json(), str(cascade.judges[0].scorer.identity)):
        assert "sk-secret" not in shown.replace(service.url, "")
    assert "pw" not in cascade.judges[0].scorer.identity["url"]
    await cascade.judges[0].scorer.aclose()


@pytest.mark.parametrize(
    ("text", "status", "error"),
    [("empty", 200, "ScorerError"), ("html", 200, "ScorerError"), ("x", 401, "ScorerError"), ("x", 503, "ScorerError")],
)
async def test_http_failures_reject(service: Service, text: str, status: int, error: str) -> None:
    cascade = await load_cascade(load_policy(policy(judges=[http_judge(service, retries=1)])))
    service.statuses = [status] * 2
    judgement = (await cascade.judge([passage(text)]))[0]
    assert judgement.veto is not None
    assert "rest failed" in judgement.veto
    assert judgement.scores[0].value is None
    assert judgement.scores[0].error == error
    assert len(service.seen) == (2 if status == 503 else 1)


async def test_http_timeout_rejects(service: Service) -> None:
    service.delay = 1.0
    cascade = await load_cascade(load_policy(policy(judges=[http_judge(service, timeout=0.2)])))
    assert (await cascade.judge([passage("fine")]))[0].veto is not None


async def test_http_true_counts_as_one(service: Service) -> None:
    cascade = await load_cascade(load_policy(policy(judges=[http_judge(service, score="results[0].flag")])))
    assert [j.scores[0].value for j in await cascade.judge([passage("bad"), passage("good")])] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"score": "a["}, "score: not a JMESPath expression"),
        ({"score": "lenght(a)"}, "score: there is no function lenght(); did you mean `length`?"),
        ({"score": "a.b | [length()]"}, "score: length() takes 1 argument, not 0"),
        ({"score": "max_by(a, b)"}, "score: max_by() does not take what is written as argument 2; it takes expref"),
        ({"score": "abs('x') + a"}, "score: not a JMESPath expression"),
        ({"score": "abs('x')"}, "score: abs() does not take what is written as argument 1; it takes number"),
        ({"score": "a[::0] | [0]"}, "score: a slice cannot have the step 0"),
        ({"score": "results[].score"}, "score: gives a list, and a score is one number"),
        ({"score": "`0.5`"}, "score: looks at no part of the reply"),
        ({"body": {"text": "all: {messages}"}}, "body: {answer}, {segment} or {messages} is missing"),
        ({"body": {"{answer}": "text"}}, "body: {answer}, {segment} or {messages} is missing"),
        ({"url": "http://x:port/"}, "url: not a URL"),
        ({"url": "http:///classify"}, "url: the URL has no host"),
        ({"headers": {"X Key": "sk-secret"}}, "headers: a header cannot be named 'X Key'"),
        ({"headers": {"X-Key": "sk-secret\n"}}, "headers: the value of X-Key has a line break"),
        ({"body": {"text": "{prompt}"}}, "body: {answer}, {segment} or {messages} is missing"),
        ({"url": "ftp://x"}, "url: "),
        ({"weight": 1.0, "every": 2}, "a judge with a weight is asked at each segment"),
        ({"every": 0, "final": False}, "would never ask the judge"),
        ({"scope": "prompt"}, "scope: "),
        ({"scope": {"tail": 0}}, "greater than or equal to 1"),
    ],
)
def test_bad_judges_are_named(service: Service, more: dict[str, Any], expected: str) -> None:
    with pytest.raises(PolicyError) as info:
        load_policy(policy(judges=[http_judge(service, **more)]))
    assert expected in str(info.value)
    assert "sk-secret" not in str(info.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe@mail.example.org now", "email"),
        ("card 4111 1111 1111 1111", "credit_card"),
        ("card 4111 1111 1111 1112", None),
        ("account DE89 3704 0044 0532 0130 00.", "iban"),
        ("account DE88 3704 0044 0532 0130 00.", None),
        ("ssn 536-90-4399", "us_ssn"),
        ("ssn 000-12-3456", None),
        ("call +44 20 7946 0958 or (212) 555-2368", "phone"),
        ("at 192.168.1.17", "ip_address"),
        ("at 992.168.1.17 and 10:20:30", None),
        ("pi is 3.14159, the year 2024, 1+1=2, a @ b", None),
    ],
)
async def test_personal_data(text: str, expected: str | None) -> None:
    rating = (await PiiScorer().score([passage(text)]))[0]
    assert rating.detail == expected
    assert (rating.value > 0) == (expected is not None)


async def test_personal_data_over_the_edge_of_a_segment() -> None:
    cut = Passage(call_id="c", messages=tuple(USER), accepted="mail jane.doe@ma", segment="il.example.org")
    assert (await PiiScorer().score([cut]))[0].value == 1.0
    cascade = await load_cascade(load_policy(policy(judges=[{"name": "p", "type": "pii"}])))
    assert (await cascade.judge([cut]))[0].veto == "p: email"


def shouting(passage: Passage) -> float:
    return float(passage.answer.isupper())


async def polite(passage: Passage) -> Rating:
    return Rating(float("please" in passage.answer), "politeness")


class Longest(FunctionScorer):
    def __init__(self, most: int) -> None:
        super().__init__(lambda p: float(len(p.answer) > most))


class Counting:
    """Not a `Scorer`: an object that is called with each passage."""

    def __init__(self, word: str = "please") -> None:
        self.word = word

    async def __call__(self, passage: Passage) -> int:
        await asyncio.sleep(0)
        return passage.answer.count(self.word)


counting = Counting("thanks")


def boolean(passage: Passage) -> bool:
    return passage.answer.isupper()


def later(passage: Passage) -> Any:
    """Not a coroutine function, but gives what has to be awaited."""
    return polite(passage)


def words_of(separator: str) -> Callable[[Passage], int]:
    return lambda passage: len(passage.answer.split(separator))


def silent(passage: Passage) -> None:
    return None


@dataclass
class Plain(Scorer):
    """A dataclass compares its fields, so it has no hash."""

    most: int = 3
    identity: dict[str, str] = field(default_factory=lambda: {"kind": "plain"})

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [Rating(float(len(passage.answer) > self.most)) for passage in passages]


@dataclass(frozen=True, slots=True)
class Frozen(Scorer):
    most: int = 3
    identity: dict[str, str] = field(default_factory=lambda: {"kind": "frozen"})

    async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
        return [Rating(float(len(passage.answer) > self.most)) for passage in passages]


plain = Plain()


@pytest.mark.parametrize(
    ("call", "options", "text", "expected"),
    [
        ("test_judges:shouting", {}, "LOUD", 1.0),
        ("test_judges:polite", {}, "please", 1.0),
        ("test_judges:Longest", {"most": 3}, "long", 1.0),
        ("test_judges:Longest", {"most": 4}, "long", 0.0),
        ("test_judges:Counting", {}, "please please", 2.0),
        ("test_judges:Counting", {"word": "x"}, "xxx", 3.0),
        ("test_judges:counting", {}, "thanks", 1.0),
        ("test_judges:boolean", {}, "LOUD", 1.0),
        ("test_judges:boolean", {}, "soft", 0.0),
        ("test_judges:later", {}, "please", 1.0),
        ("test_judges:words_of", {"separator": "-"}, "a-b-c", 3.0),
        ("test_judges:Plain", {}, "long", 1.0),
        ("test_judges:plain", {}, "long", 1.0),
        ("test_judges:Frozen", {"most": 4}, "long", 0.0),
    ],
)
async def test_your_own_judge(call: str, options: dict[str, Any], text: str, expected: float) -> None:
    spec = {"name": "own", "type": "python", "call": call, "options": options, "reject_above": 0.5}
    loaded = load_policy(policy(judges=[spec]))
    with pytest.raises(PolicyError, match="python judges are off"):
        await load_cascade(loaded)
    cascade = await load_cascade(loaded, allow_python=True)
    assert (await cascade.judge([passage(text)]))[0].scores[0].value == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("no.such:thing", "cannot load the python judge 'no.such:thing': ModuleNotFoundError"),
        ("test_judges:nothing", "AttributeError"),
        ("test_judges:USER", "neither a function nor a Scorer"),
        ("test_judges:Longest", "does not take its options: TypeError"),
    ],
)
async def test_your_own_judge_that_is_not_there(call: str, expected: str) -> None:
    spec = {"name": "own", "type": "python", "call": call, "reject_above": 0.5}
    with pytest.raises(ScorerError) as info:
        await load_cascade(load_policy(policy(judges=[spec])), allow_python=True)
    assert expected in str(info.value)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("toxicity", "a judge of an installed package is a type of its own: `type: toxicity`"),
        ("a:b c", "should be module:name"),
        (":polite", "should be module:name"),
    ],
)
def test_a_path_that_is_none_fails_with_the_policy(call: str, expected: str) -> None:
    with pytest.raises(PolicyError) as info:
        load_policy(policy(judges=[{"name": "own", "type": "python", "call": call, "reject_above": 0.5}]))
    assert expected in str(info.value)


async def test_a_judge_that_gives_no_number_fails() -> None:
    spec = {"name": "own", "type": "python", "call": "test_judges:silent", "reject_above": 0.5}
    cascade = await load_cascade(load_policy(policy(judges=[spec])), allow_python=True)
    assert (await cascade.judge([passage("x")]))[0].veto == "own failed: ScorerError"


@pytest.mark.parametrize("kind", [Plain, Frozen])
async def test_a_scorer_needs_no_hash_and_has_one_batcher(kind: type[Scorer]) -> None:
    """Equal scorers are still two: each is asked by itself, and its passages of all calls go together."""
    one, other = kind(), kind()
    assert one == other
    with pytest.raises(TypeError, match="unhashable"):
        hash(kind())
    cascades = [Cascade([Judge(Rule(judge="j", reject_above=0.5), scorer)]) for scorer in (one, one, other)]
    judgements = await asyncio.gather(*(cascade.judge([passage("long")]) for cascade in cascades))
    assert [judgement[0].scores[0].batch for judgement in judgements] == [2, 2, 1]


async def test_a_guard_runs_python_only_where_allowed() -> None:
    spec = {"name": "own", "type": "python", "call": "test_judges:shouting", "reject_above": 0.5}
    made = Guard(policy(judges=[spec]), model=ScriptedBackend(words()), audit=MemoryStore(), allow_python=True)
    assert (await made.generate(USER)).finish == "length"
    refused = Guard(policy(judges=[spec]), model=ScriptedBackend(words()), audit=MemoryStore())
    with pytest.raises(PolicyError):
        await refused.generate(USER)


def watching(**more: Any) -> tuple[Judge, list[Passage]]:
    seen: list[Passage] = []

    def look(passage: Passage) -> float:
        seen.append(passage)
        return 0.0

    return Judge(Rule(judge="watch", reject_above=0.5), FunctionScorer(look), **more), seen


async def test_scope() -> None:
    whole = Passage(call_id="c", messages=tuple(USER), accepted="abcdefgh", segment="XYZ")
    for more, expected in (
        ({}, ("abcdefgh", "XYZ")),
        ({"tail": 0}, ("", "XYZ")),
        ({"tail": 2}, ("", "XYZ")),
        ({"tail": 5}, ("gh", "XYZ")),
    ):
        judge, seen = watching(**more)
        await Cascade([judge]).judge([whole])
        assert (seen[0].accepted, seen[0].segment) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, list(range(12))),
        ({"every": 5}, [4, 9]),
        ({"every": 5, "final": True}, [4, 9, 11]),
        ({"every": 0, "final": True}, [11]),
    ],
)
async def test_when_a_judge_is_asked(more: dict[str, Any], expected: list[int]) -> None:
    judge, seen = watching(**more)
    made = guard(judge, parallel=1)
    done = await made.generate(USER, CallOptions(seed=3))
    assert [p.index for p in seen] == expected
    assert seen[-1].last == (expected[-1] == 11)
    if more.get("final"):
        assert seen[-1].answer == done.text
    records = made.audit.read()[0].segments
    assert [s.index for s in records if s.attempts[0].scores] == expected


async def test_the_last_check_sees_all_and_holds_the_end_back() -> None:
    judge = Judge(Rule(judge="end", reject_above=0.5), FunctionScorer(lambda p: float(p.last)), tail=0, final=True)
    made = guard(judge, on_exhausted="refuse")
    done = await made.generate(USER, CallOptions(seed=3))
    assert done.finish == "refused"
    assert made.audit.read()[0].segments[-1].index == 11


async def test_a_failing_judge_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    fails = True

    def broken(passage: Passage) -> float:
        nonlocal calls
        calls += 1
        if fails:
            raise RuntimeError("secret")
        return 0.0

    cascade = Cascade([Judge(Rule(judge="b", reject_above=0.5), FunctionScorer(broken))])
    now = 100.0
    monkeypatch.setattr("stars_guard.scorers._breaker.time.monotonic", lambda: now)
    for number in range(9):
        judgement = (await cascade.judge([replace(passage("x"), call_id=str(number))]))[0]
        assert judgement.veto is not None
    assert calls == 5
    assert judgement.scores[0].error == "left alone after failures in a row"
    now += 31
    await cascade.judge([passage("x")])
    await cascade.judge([passage("x")])
    assert calls == 6
    now, fails = now + 31, False
    assert [(await cascade.judge([passage("x")]))[0].veto for _ in range(2)] == [None, None]
    assert calls == 8


def test_a_success_closes_the_breaker() -> None:
    breaker = Breaker(failures=2)
    breaker.failed({"a"})
    breaker.succeeded()
    breaker.failed({"b"})
    assert not breaker.is_open
    breaker.failed({"c"})
    assert breaker.is_open


async def test_the_record_tells_batches() -> None:
    made = guard(rewarding(), parallel=4)
    await made.generate(USER, CallOptions(seed=1))
    score = made.audit.read()[0].segments[0].attempts[0].scores[0]
    assert (score.batch, score.cached) == (4, None)
    assert score.seconds > 0
