"""An answer goes back over what is held: to where a match begins, and over the segment before a dead end."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
from conftest import policy
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import FALSE_ALARM, chance

from stars_guard.audit import CallRecord, MemoryStore
from stars_guard.auditing.counterfactual import what_if
from stars_guard.auditing.replay import compare, regenerate
from stars_guard.auditing.verification import redo
from stars_guard.calling import portal
from stars_guard.core.events import Decision, Ended, Event, Finished, Kept, Released, Rewound
from stars_guard.core.judging import Rule
from stars_guard.core.messages import Message
from stars_guard.core.segments import Candidate, Token
from stars_guard.decoding import AnswerText
from stars_guard.decoding.rewinding import Standing
from stars_guard.errors import PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.scorers.cascade import Judge
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.testing import FunctionScorer
from stars_guard.testing.scripted import ScriptedBackend

ASK = [Message("user", "hi")]
REGEX = r"abca|ccb+a"
MATCH = Judge(Rule(judge="match", reject_above=0.0), PatternScorer([Pattern(name="it", regex=REGEX)]))
TOKENS = ("a", "b", "c", "ab", "bca", "é")


def rewarding(seed: int) -> Judge:
    """Gives a reward that depends on the whole answer."""
    scorer = FunctionScorer(lambda p: random.Random(f"{seed}{p.answer}").uniform(-1, 1))
    return Judge(Rule(judge="reward", weight=1.0), scorer)


def babbling(length: int, chunk: int = 1) -> ScriptedBackend:
    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        return None if len(so_far) >= length else rng.choice(TOKENS)

    return ScriptedBackend(script, chunk=chunk)


def answered(
    judges: Sequence[Judge], backend: ScriptedBackend, seed: int, **decoding: Any
) -> tuple[list[Event], CallRecord]:
    store = MemoryStore()
    made = Guard(policy(**decoding), model=backend, judges=judges, audit=store)
    events = list(made.blocking.stream(ASK, CallOptions(seed=seed)))
    return events, store.records[0]


POLICIES = st.fixed_dictionaries(
    {
        "segment_tokens": st.integers(1, 5),
        "attempts": st.integers(1, 4),
        "rewinds": st.integers(0, 6),
        "hold_tokens": st.sampled_from([0, 0, 3, 9]),
        "parallel": st.sampled_from([1, 2, "auto"]),
        "on_exhausted": st.sampled_from(["best", "refuse", "stop"]),
        "budget_tokens": st.sampled_from([None, None, 40, 70]),
        "max_tokens": st.just(24),
        "schedule": st.sampled_from(["linear", "constant"]),
        "r_star": st.sampled_from([-5.0, 0.0, 0.9]),
        "method": st.sampled_from(["stars", "cards"]),
    }
)


@settings(max_examples=60)
@given(decoding=POLICIES, seed=st.integers(0, 2**40), chunk=st.integers(1, 4))
def test_what_always_holds(decoding: dict[str, Any], seed: int, chunk: int) -> None:
    events, record = answered([MATCH, rewarding(seed)], babbling(20, chunk), seed, **decoding)
    assert redo(record) is None
    assert redo(CallRecord.model_validate_json(record.model_dump_json())) is None
    done = events[-1]
    assert isinstance(done, Finished)
    totals = done.totals
    parts = (totals.kept, totals.rejected, totals.surplus, totals.overrun, totals.rewound)
    assert totals.drawn == sum(parts)
    assert decoding["budget_tokens"] is None or totals.drawn <= decoding["budget_tokens"]
    assert totals.rewinds == sum(isinstance(event, Rewound) for event in events) <= decoding["rewinds"]
    assert all(len(segment.attempts) <= decoding["attempts"] for segment in record.segments)
    assert not re.search(REGEX, done.text)
    assert done.text == "".join(event.text for event in events if isinstance(event, Released))
    out = 0
    for event in events:
        if isinstance(event, Released):
            out += len(event.text)
        if isinstance(event, Rewound):
            assert event.place >= out  # what is out stays out
    assert all(tokens > 0 for tokens, _ in record.standing.values())
    assert sum(tokens for tokens, _ in record.standing.values()) == totals.kept
    assert len(record.standing) == totals.segments
    assert standing_text(record).startswith(done.text)
    assert done.finish in ("refused", "stopped", "budget") or standing_text(record) == done.text


def standing_text(record: CallRecord) -> str:
    texts = {s.index: a.text.content or "" for s in record.segments for a in s.attempts if a.attempt == s.kept}
    return "".join(texts[index][:characters] for index, (_, characters) in record.standing.items())


@settings(max_examples=40)
@given(decoding=POLICIES, seed=st.integers(0, 2**40))
def test_without_a_rewind_nothing_is_different(decoding: dict[str, Any], seed: int) -> None:
    """Bit by bit. With one, everything before it is the same."""
    judges = [MATCH, rewarding(seed)]
    events, record = answered(judges, babbling(20), seed, **{**decoding, "parallel": 1})
    plain, _ = answered(judges, babbling(20), seed, **{**decoding, "parallel": 1, "rewinds": 0})
    back = next((at for at, event in enumerate(events) if isinstance(event, Rewound)), None)
    if back is None:
        assert judged(events) == judged(plain)
        given = "".join(event.text for event in plain if isinstance(event, Released))
        # tokens are released whole, so what is given out of a refused answer may end a little earlier
        assert given.startswith(record.answer.content or "")
        assert given == record.answer.content or record.finish == "refused"
    else:
        before = judged(events[:back])
        assert judged(plain)[: len(before)] == before


def judged(events: Sequence[Event]) -> list[Any]:
    """What was decided, without times, and without what depends on how much is released at a time."""
    return [
        (event.segment, event.attempt, event.candidate, event.judgement.reward, event.judgement.veto, event.u)
        if isinstance(event, Decision)
        else event
        for event in events
        if isinstance(event, Decision | Kept | Ended)
    ]


def one(pattern: str, law: dict[str, float], length: int, **decoding: Any) -> Counter[str]:
    """Answers of single letters, each segment one letter."""

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        return rng.choices(list(law), list(law.values()))[0]

    judge = Judge(Rule(judge="match", reject_above=0.0), PatternScorer([Pattern(name="it", regex=pattern)]))
    made = Guard(
        policy(segment_tokens=1, max_tokens=length, on_exhausted="refuse", parallel=1, **decoding),
        model=ScriptedBackend(script),
        judges=[judge],
        audit=MemoryStore(),
    )
    done = made.blocking.batch([ASK] * 600, CallOptions(seed=7), concurrency=64)
    return Counter(each.text if each.finish == "length" else "refused" for each in done)


LETTERS = {"a": 0.5, "b": 0.3, "c": 0.2}


def two_letters(rewinds: int, attempts: int) -> dict[str, float]:
    """The closed form for two letters of which "ab" is vetoed. As long as there are rewinds, "ab" begins the answer
    anew. Without, the second letter alone is generated again, up to the attempts."""
    free = {x + y: LETTERS[x] * LETTERS[y] for x, y in product(LETTERS, LETTERS) if x != "a"}
    after_a = {y: LETTERS[y] for y in "ac"}
    again = LETTERS["a"] * LETTERS["b"]
    if rewinds:
        found = {**free, **{"a" + y: LETTERS["a"] * p for y, p in after_a.items()}, "refused": 0.0}
        below = two_letters(rewinds - 1, attempts)
        return {text: found.get(text, 0.0) + again * p for text, p in below.items()}
    miss = LETTERS["b"] ** attempts
    share = (1 - miss) / (1 - LETTERS["b"])
    return {**free, **{"a" + y: LETTERS["a"] * p * share for y, p in after_a.items()}, "refused": LETTERS["a"] * miss}


@pytest.mark.parametrize(("rewinds", "attempts"), [(0, 2), (1, 2), (3, 1)])
def test_the_output_distribution_is_the_closed_form(rewinds: int, attempts: int) -> None:
    law = two_letters(rewinds, attempts)
    assert sum(law.values()) == pytest.approx(1)
    seen = one("ab", LETTERS, 2, rewinds=rewinds, attempts=attempts)
    assert chance(law, seen) > FALSE_ALARM
    assert chance(two_letters(rewinds + 1 if rewinds == 0 else 0, attempts), seen) < FALSE_ALARM


def test_with_many_rewinds_it_is_the_models_own_without_what_is_vetoed() -> None:
    allowed = {x + y: LETTERS[x] * LETTERS[y] for x, y in product(LETTERS, LETTERS) if x + y != "ab"}
    law = two_letters(40, 1)
    assert law["refused"] < 1e-20
    for text, p in allowed.items():
        assert law[text] == pytest.approx(p / sum(allowed.values()))


def test_a_dead_end_goes_back_over_the_segment_before_it() -> None:
    """After "x" nothing is acceptable, and the judge cannot tell before."""
    scorer = FunctionScorer(lambda p: float("x" in p.accepted))
    judge = Judge(Rule(judge="dead end", reject_above=0.5), scorer)

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        return rng.choice("xyz")

    backend = ScriptedBackend(script)
    common = {"segment_tokens": 1, "max_tokens": 6, "attempts": 2, "on_exhausted": "refuse", "parallel": 1}
    finishes = Counter()
    for seed in range(40):
        events, record = answered([judge], backend, seed, **common, hold_tokens=2, rewinds=30)
        assert redo(record) is None
        finishes[events[-1].finish] += 1  # type: ignore[union-attr]
        for event in events:
            if isinstance(event, Rewound):
                assert (event.why, event.left, event.tokens) == ("exhausted", 0, 1)
        assert "x" not in record.answer.content[:-1]  # type: ignore[index]
    assert finishes["length"] > 35
    plain = [answered([judge], backend, seed, **common, hold_tokens=2)[1].finish for seed in range(40)]
    assert plain.count("refused") > 20


def test_what_stays_is_judged_though_it_has_no_text_yet() -> None:
    """The first token is half a character, and the answer goes back to it."""

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        return "" if not so_far else rng.choice("xyz")

    judge = Judge(Rule(judge="words", reject_above=0.5), FunctionScorer(lambda p: float(p.answer not in ("", "x"))))
    common = {"segment_tokens": 1, "attempts": 2, "rewinds": 1, "hold_tokens": 3, "on_exhausted": "stop"}
    found = 0
    for seed in range(30):
        events, record = answered([judge], ScriptedBackend(script), seed, **common)
        assert redo(record) is None
        found += any(isinstance(e, Rewound) for e in events) and record.totals["kept"] == 1
    assert found


# --- verify finds each forged rewind

FORGED: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
    "to": lambda r, s: s["rewound"].update(to=s["rewound"]["to"] - 1),
    "left": lambda r, s: s["rewound"].update(left=s["rewound"]["left"] + 1),
    "place": lambda r, s: s["rewound"].update(place=s["rewound"]["place"] - 1),
    "tokens": lambda r, s: s["rewound"].update(tokens=s["rewound"]["tokens"] + 1),
    "why": lambda r, s: s["rewound"].update(why="match" if s["rewound"]["why"] == "exhausted" else "exhausted"),
    "reason": lambda r, s: s["rewound"].update(reason="it was better so"),
    "gone": lambda r, s: s.update(rewound=None),
    "ended instead": lambda r, s: s.update(rewound=None, ended={"action": "refuse", "reason": "no"}),
    "kept instead": lambda r, s: s.update(rewound=None, kept=0, how="best"),
    "kept too": lambda r, s: s.update(kept=0, how="best"),
    "held less": lambda r, s: s.update(held=0),
    "held more": lambda r, s: s.update(held=10_000),
    "moved": lambda r, s: r["segments"][-1].update(rewound=s["rewound"]),
    "rewinds": lambda r, s: r["decoding"].update(rewinds=0),
    "attempts": lambda r, s: r["decoding"].update(attempts=99),
    "total": lambda r, s: r["totals"].update(rewound=r["totals"]["rewound"] + 1),
    "count": lambda r, s: r["totals"].update(rewinds=0),
    "method": lambda r, s: r["decoding"].update(method="vanilla"),
    "monitor": lambda r, s: r["decoding"].update(monitor=True),
}


def rewound(why: str, **more: Any) -> list[CallRecord]:
    decoding = {"segment_tokens": 3, "attempts": 2, "rewinds": 4, "max_tokens": 24, "r_star": 0.0, **more}
    found = []
    for seed in range(80):
        _, record = answered([MATCH, rewarding(seed)], babbling(20), seed, **decoding)
        if any(s.rewound and s.rewound.why == why for s in record.segments) and len(found) < 4:
            found.append(record)
    return found


@pytest.fixture(scope="module")
def records() -> dict[str, list[CallRecord]]:
    return {"match": rewound("match"), "exhausted": rewound("exhausted", hold_tokens=6)}


@pytest.mark.parametrize("why", ["match", "exhausted"])
@pytest.mark.parametrize("name", FORGED)
def test_a_forged_rewind_is_found(name: str, why: str, records: dict[str, list[CallRecord]]) -> None:
    assert records[why]
    for record in records[why]:
        data = record.model_dump()
        segment = next(s for s in data["segments"] if s["rewound"] and s["rewound"]["why"] == why)
        if name == "attempts" and why == "match":
            continue  # how many there may be is of no matter to a match
        FORGED[name](data, segment)
        assert redo(CallRecord.model_validate(data)) is not None, name


def test_a_rewind_that_was_left_out_is_found() -> None:
    """Where its attempts ran out, the answer kept the best, although it could have gone back."""
    found = 0
    for seed in range(12):
        decoding = {"segment_tokens": 3, "attempts": 2, "max_tokens": 24, "r_star": 0.0, "hold_tokens": 6}
        _, record = answered([MATCH, rewarding(seed)], babbling(20), seed, **decoding, rewinds=0)
        could = record.model_copy(update={"decoding": {**record.decoding, "rewinds": 3}})
        if any(s.how == "best" and s.held >= 6 for s in record.segments):
            assert redo(could) is not None
            found += 1
    assert found


@settings(max_examples=25)
@given(decoding=POLICIES, seed=st.integers(0, 2**40))
def test_what_if_under_the_same_policy_is_the_same_answer(decoding: dict[str, Any], seed: int) -> None:
    patterns = [{"name": "it", "regex": REGEX}]
    spec = {**policy(**decoding), "judges": [{"name": "match", "type": "patterns", "patterns": patterns}]}
    store = MemoryStore()
    Guard(spec, model=babbling(20), audit=store).blocking.generate(ASK, CallOptions(seed=seed))
    (record,) = store.records
    assert redo(record) is None
    found = portal.call(lambda: what_if(record, load_policy(spec)))
    assert found.parting is None
    again = portal.call(lambda: regenerate(record, load_policy(spec), model=babbling(20)))
    assert list(compare(record, again)) == []
    back = next((segment.index for segment in record.segments if segment.rewound), None)
    never = load_policy({**spec, "decoding": {**spec["decoding"], "rewinds": 0}})
    parting = portal.call(lambda: what_if(record, never)).parting
    assert (None if parting is None else parting.segment) == back


# --- the pure parts


@given(st.lists(st.lists(st.sampled_from(["", "a", "bc", "def"]), min_size=1, max_size=4), max_size=4), st.data())
def test_standing_goes_back_to_tokens_alone(segments: list[list[str]], data: st.DataObject) -> None:
    standing = Standing()
    for index, texts in enumerate(segments):
        standing.add(index, Candidate(tokens=tuple(Token(0, text) for text in texts), text="".join(texts)), None)
    flat = [(index, text) for index, texts in enumerate(segments) for text in texts]
    length = sum(len(text) for _, text in flat)
    characters = data.draw(st.integers(0, length + 1))
    back = standing.before(characters)
    starts = [sum(len(text) for _, text in flat[:at]) for at in range(len(flat))]
    wanted = [at for at, start in enumerate(starts) if start >= length - characters]
    if not wanted or starts[wanted[0]] != length - characters:
        assert back is None
        return
    assert back is not None
    assert (back.tokens, back.place) == (len(flat) - wanted[0], length - characters)
    index = flat[wanted[0]][0]
    assert (back.to, back.left) == (index, sum(i == index for i, _ in flat[: wanted[0]]))
    standing.cut(back)
    assert standing.characters == length - characters


def test_tokens_are_released_whole_where_the_answer_may_go_back() -> None:
    text = AnswerText(whole_tokens=True)
    made = Candidate(tokens=(Token(0, "one "), Token(1, "two AK"), Token(2, "IA")), text="one two AKIA")
    pieces = text.accept(made, [8])
    assert [piece.text for piece in pieces] == ["one "]
    assert (text.fault(8), text.fault(10), text.fault(2)) == (4, 10, None)
    assert AnswerText().fault(0) is None


@pytest.mark.parametrize("method", ["vanilla", "best_of_n", "blockwise_best_of_k"])
@pytest.mark.parametrize("key", [{"rewinds": 1}, {"recovery": {"instruction": "Be kind."}}])
def test_methods_that_compare_candidates_refuse(method: str, key: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match=f"isn't supported by the method {method}"):
        load_policy(policy(method=method, **key))


KEY = "AKIAABCDEFGHIJKLMNOP"


@pytest.mark.parametrize("name", ["default", "strict"])
def test_the_shipped_policies_go_back_to_where_a_key_begins(name: str) -> None:
    """Once a model has begun a key it goes on with it, so nothing that comes after the beginning can be accepted."""
    spec = load_policy(name)
    judges = tuple(judge for judge in spec.judges if judge.name == "secrets")

    def script(messages: Sequence[Message], so_far: tuple[str, ...], rng: random.Random) -> str | None:
        begun = "".join(so_far).rpartition(" ")[2]
        if begun and KEY.startswith(begun):
            return KEY[len(begun) : len(begun) + 2] or None
        return rng.choice([" AKIA", " a", " word", " more"])

    def answers(rewinds: int) -> list[Finished]:
        numbers = {"segment_tokens": 4, "max_tokens": 16, "schedule": "constant", "rewinds": rewinds}
        changed = spec.model_copy(update={"judges": judges, "decoding": spec.decoding.model_copy(update=numbers)})
        made = Guard(changed, model=ScriptedBackend(script), audit=MemoryStore())
        return [made.blocking.generate(ASK, CallOptions(seed=seed)) for seed in range(40)]

    without, shipped = answers(0), answers(spec.decoding.rewinds)
    assert sum(each.finish == "refused" for each in without) > 20
    assert sum(each.finish == "refused" for each in shipped) <= 10
    assert any(each.totals.rewinds for each in shipped)
    assert not any(KEY in each.text for each in [*without, *shipped])
