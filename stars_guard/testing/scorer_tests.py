"""What every scorer has to keep to, as tests. Subclass `ScorerTests` in the tests of your package.

It needs pytest. With blockbuster installed it also tests that the event loop is never blocked.
"""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from stars_guard.core.messages import Message, ToolCall
from stars_guard.core.segments import Passage
from stars_guard.core.vocabulary import Role
from stars_guard.errors import StarsGuardError
from stars_guard.scorers.base import Rating, Scorer

__all__ = ["ScorerTests"]

ASK = (Message("user", "How do I get along with my neighbours?"),)
ANSWERS = ("Talk to them.", "No.", "Invite them, listen, and be patient with their dog. ", "x", "Talk to them. " * 9)
UNICODE = (
    "naïve Ünïcode, ß and ﬁ",
    "日本語のテキスト。",
    "السلام عليكم",
    "नमस्ते",
    "👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
    "e\u0301 and \u200d and \ufeff",
    "\x00\x01\x02 control \x1b[0m\x7f",
    "\u2028\u2029\r\n\t",
    "\U0010ffff\ufffd\ue000",
    "{answer} {{ 7 * 7 }} %s \\d+ <|im_end|> [SEP] </s>",
)
WRITERS: tuple[Role, ...] = ("assistant", "user", "tool")
DIALOGUE = (
    Message("system", "Be brief."),
    Message("user", "What is in the drawer?"),
    Message("assistant", "", tool_calls=(ToolCall(id="1", name="look", arguments={"where": "drawer"}),)),
    Message("tool", "a spoon", tool_call_id="1", name="look"),
    Message("assistant", "A spoon."),
    Message("user", "And now?"),
)


class ScorerTests:
    """Tests of one scorer. Override `make`, and what else you can say about it.

    Attributes:
        samples: texts that your scorer should tell apart, such as one that it finds something in.
        tolerance: how far a score may differ between two batches. Models that pad differ in the last digits.
        secrets: texts that your scorer is given and must not show, such as an API key.
        telltale: a text that has a higher score than any text without it. Where you give one, it is looked for at the
            beginning, in the middle and at the end of a long text.
    """

    samples: Sequence[str] = ()
    tolerance: float = 1e-4
    secrets: Sequence[str] = ()
    telltale: str = ""

    @abstractmethod
    async def make(self) -> Scorer:
        """Make the scorer. It is called once for most tests together, and once for each test that closes it."""

    @pytest.fixture(scope="class")
    @classmethod
    def loop(cls) -> Iterator[asyncio.Runner]:
        """The event loop of these tests."""
        with asyncio.Runner() as runner:
            yield runner

    @pytest.fixture(scope="class")
    @classmethod
    def scorer(cls, loop: asyncio.Runner) -> Iterator[Scorer]:
        """The scorer of the tests that leave it open."""
        made = loop.run(cls().make())
        yield made
        loop.run(made.aclose())

    def passages(self) -> list[Passage]:
        """Passages of several calls; those of one call differ in their segment."""
        texts = (*ANSWERS, *self.samples)
        return [
            Passage(call_id=f"call-{i % 3}", messages=ASK, accepted="", segment=text, index=0, last=bool(i % 2))
            for i, text in enumerate(texts)
        ]

    def scores(self, loop: asyncio.Runner, scorer: Scorer, passages: Sequence[Passage]) -> list[float]:
        """The values, after checking what every rating must be."""
        ratings = loop.run(_score(scorer, passages))
        assert len(ratings) == len(passages), "score must give one rating for each passage"
        for rating in ratings:
            assert isinstance(rating, Rating), f"score must give ratings, not {type(rating).__name__}"
            assert type(rating.value) is float, f"a score must be a float, not {type(rating.value).__name__}"
            assert math.isfinite(rating.value), f"a score must be a finite number, not {rating.value}"
            assert rating.detail is None or isinstance(rating.detail, str), "detail must be a text or None"
            assert rating.cached is None or rating.cached >= 0, "cached must be a number of tokens or None"
        return [rating.value for rating in ratings]

    def same(self, one: Sequence[float], other: Sequence[float]) -> bool:
        """Whether scores are equal up to `tolerance`."""
        pairs = zip(one, other, strict=True)
        return all(math.isclose(a, b, rel_tol=self.tolerance, abs_tol=self.tolerance) for a, b in pairs)

    def test_a_score_does_not_depend_on_its_neighbours(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        passages = self.passages()
        together = self.scores(loop, scorer, passages)
        alone = [self.scores(loop, scorer, [passage])[0] for passage in passages]
        assert self.same(together, alone), "a passage has another score in a batch than alone"

    def test_it_waits_only_if_it_says_so(self, scorer: Scorer) -> None:
        if scorer.waits:
            return
        for work in (scorer.score(self.passages()), scorer.forget("call-0")):
            try:
                work.send(None)
            except StopIteration:
                continue
            work.close()
            raise AssertionError("the scorer says that it never waits, and it waits")

    def test_scores_come_in_the_order_of_the_passages(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        passages = self.passages()
        forwards = self.scores(loop, scorer, passages)
        backwards = self.scores(loop, scorer, passages[::-1])
        assert self.same(forwards, backwards[::-1]), "scores must be in the order of the passages"

    @pytest.mark.parametrize("size", [0, 1, 2, 33])
    def test_a_batch_has_any_size(self, loop: asyncio.Runner, scorer: Scorer, size: int) -> None:
        passages = (self.passages() * 33)[:size]
        values = self.scores(loop, scorer, passages)
        for passage, value in zip(passages, values, strict=True):
            first = values[passages.index(passage)]
            assert self.same([value], [first]), "the same passage has two scores in one batch"

    def test_a_text_holds_any_character(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        for text in UNICODE:
            asked = (Message("user", text),)
            self.scores(
                loop,
                scorer,
                [
                    Passage(call_id="u", messages=asked, accepted=text[:3], segment=text[3:]),
                    Passage(call_id="v", messages=ASK, accepted="", segment=text, last=True),
                ],
            )

    def test_texts_may_be_empty(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        """The prompt alone, a last segment without text, and a text without a conversation."""
        self.scores(loop, scorer, [Passage(call_id="e", messages=ASK, accepted="", segment="")])
        self.scores(
            loop, scorer, [Passage(call_id="e", messages=ASK, accepted="Talk to them.", segment="", index=1, last=True)]
        )
        self.scores(
            loop,
            scorer,
            [
                Passage(call_id="f", messages=(), accepted="", segment="Talk to them.", last=True),
                Passage(call_id="g", messages=(), accepted="", segment=""),
            ],
        )

    def test_a_conversation_has_any_roles(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        self.scores(loop, scorer, [Passage(call_id="d", messages=DIALOGUE, accepted="", segment="A fork.")])

    def test_a_long_text_is_scored_or_refused(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        """What is too long for a scorer is one of the package's own errors, if the scorer cannot read all of it."""
        for passage in (
            Passage(call_id="l", messages=ASK, accepted="They may be old friends. " * 4000, segment="Talk."),
            Passage(call_id="m", messages=(Message("user", "They are loud. " * 4000),), accepted="", segment="Talk."),
            Passage(call_id="n", messages=ASK, accepted="", segment="x" * 20_000, last=True),
        ):
            try:
                self.scores(loop, scorer, [passage])
            except StarsGuardError:
                continue
        self.scores(loop, scorer, [Passage(call_id="o", messages=ASK, accepted="", segment="Talk.")])

    def test_what_has_begun_is_open(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        for text in (*ANSWERS, *UNICODE, *self.samples, self.telltale):
            for start in (0, len(text) // 2, len(text)):
                place = scorer.open_from(text, start)
                assert place is None or start <= place <= len(text), "open_from must give a place from the start on"
        finds = scorer.find(self.telltale)
        if type(scorer).open_from is Scorer.open_from or not finds:
            pytest.skip("the scorer cannot say where something has begun")
        start = min(begin for begin, _, _ in finds)
        for cut in range(start + 1, max(end for _, end, _ in finds)):
            begun = f"Well. {self.telltale[:cut]}"
            if not scorer.find(begun):
                place = scorer.open_from(begun)
                assert place is not None, f"{cut - start} characters of what is found have begun, and nothing is open"
                assert place <= start + 6, f"what is found begins at {start + 6}, and only {place} is open"

    def test_a_long_text_is_seen_whole(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        """What a judge forbids has the same verdict wherever it is in 100,000 characters, or the text is refused."""
        if not self.telltale:
            pytest.skip("no telltale")
        half = "They may be old friends. " * 2000
        for number, text in enumerate(
            (f"{self.telltale} {half}{half}", f"{half}{self.telltale} {half}", f"{half}{half}{self.telltale}")
        ):
            for role in WRITERS:
                calm, found = (
                    Passage(call_id=f"w{number}{role}{i}", messages=(), accepted="", segment=t, last=True, role=role)
                    for i, t in enumerate((half + half, text))
                )
                try:
                    low, high = self.scores(loop, scorer, [calm])[0], self.scores(loop, scorer, [found])[0]
                except StarsGuardError:
                    continue
                assert high > low, "a scorer must read all of a long text, or raise an error"

    def test_a_text_is_anybodys(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        """Rails ask about what users and tools wrote too, with a conversation and without one."""
        for messages in (ASK, DIALOGUE, ()):
            for role in WRITERS:
                given = Passage(
                    call_id=f"r{role}{len(messages)}", messages=messages, accepted="", segment="Talk.", role=role
                )
                alone = self.scores(loop, scorer, [given])
                fresh = replace(given, call_id=f"{given.call_id}-again")
                assert self.same(alone, self.scores(loop, scorer, [fresh]))

    def test_what_is_kept_of_a_call_changes_no_score(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        """Two answers grow side by side. Each segment has the score that a call of its own would give it."""
        for number in range(4):
            growing = [
                Passage(call_id=call, messages=ASK, accepted=text * number, segment=text, index=number)
                for call, text in (("one", "Talk to them. "), ("two", "Write a letter. "))
            ]
            fresh = [replace(passage, call_id=f"{passage.call_id}-{number}") for passage in growing]
            assert self.same(self.scores(loop, scorer, growing), self.scores(loop, scorer, fresh))
        rejected = Passage(call_id="one", messages=ASK, accepted="Talk to them. ", segment="Or do not. ", index=1)
        again = [self.scores(loop, scorer, [replace(rejected, call_id=call)])[0] for call in ("one", "three")]
        assert self.same(again[:1], again[1:]), "an answer that went back has another score"

    def test_calls_may_be_forgotten_at_any_time(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        passage = Passage(call_id="over", messages=ASK, accepted="", segment="Talk to them.")
        before = self.scores(loop, scorer, [passage])
        for call in ("over", "over", "never-seen", ""):
            loop.run(scorer.forget(call))
        assert self.same(before, self.scores(loop, scorer, [passage]))

    def test_what_is_found_lies_in_the_text(self, scorer: Scorer) -> None:
        for text in (*ANSWERS, *UNICODE, *self.samples, ""):
            for start, end, name in scorer.find(text):
                assert 0 <= start < end <= len(text), "find must give places inside the text"
                assert isinstance(name, str), "find must name what it found"
                assert name, "find must name what it found"

    def test_what_is_found_has_a_score(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        for text in (*ANSWERS, *self.samples):
            if scorer.find(text):
                assert (
                    self.scores(
                        loop, scorer, [Passage(call_id="found", messages=(), accepted="", segment=text, last=True)]
                    )[0]
                    > 0
                )

    def test_identity_is_text_and_holds_no_secret(self, scorer: Scorer) -> None:
        assert scorer.identity, "the audit record needs to say which scorer it was"
        for key, value in scorer.identity.items():
            assert isinstance(key, str), "identity maps texts to texts"
            assert isinstance(value, str), f"identity maps texts to texts, and {key} is not one"
        shown = f"{scorer.identity} {scorer!r} {scorer!s}"
        assert not [secret for secret in self.secrets if secret in shown], "a secret is shown"

    def test_identity_does_not_change(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        before = dict(scorer.identity)
        self.scores(loop, scorer, self.passages())
        assert scorer.identity == before

    def test_cost_is_a_time(self, scorer: Scorer) -> None:
        assert 0 < scorer.cost < math.inf

    def test_the_event_loop_goes_on(self, loop: asyncio.Runner, scorer: Scorer) -> None:
        blockbuster = pytest.importorskip("blockbuster")

        async def watched() -> None:
            await _score(scorer, self.passages())
            await scorer.forget("call-0")

        with blockbuster.blockbuster_ctx():
            loop.run(watched())

    def test_closing_twice_is_fine(self, loop: asyncio.Runner) -> None:
        self._closing(loop, lambda scorer: scorer.aclose())

    def test_a_call_that_ends_after_the_scorer_is_closed_is_fine(self, loop: asyncio.Runner) -> None:
        self._closing(loop, lambda scorer: scorer.forget("call-0"))

    def test_a_context_closes_it(self, loop: asyncio.Runner) -> None:
        async def used() -> None:
            async with await self.make() as scorer:
                await _score(scorer, self.passages())
            await scorer.aclose()

        loop.run(used())

    def _closing(self, loop: asyncio.Runner, afterwards: Callable[[Scorer], Awaitable[None]]) -> None:
        async def closed() -> None:
            scorer = await self.make()
            await _score(scorer, self.passages()[:2])
            await scorer.aclose()
            await afterwards(scorer)

        loop.run(closed())


async def _score(scorer: Scorer, passages: Sequence[Passage]) -> Sequence[Rating]:
    return await scorer.score(passages)
