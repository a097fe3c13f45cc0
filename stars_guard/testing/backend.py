"""What every backend must do, as tests to inherit. This module imports pytest, so import it in tests only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from stars_guard.backends.base import Backend, OpenRequest, Session
from stars_guard.core.messages import Message
from stars_guard.core.sampling import Sampling
from stars_guard.core.segments import Token
from stars_guard.errors import BackendUnavailable, ContextTooLong, InputError, ProtocolError
from stars_guard.testing._backend_case import BackendCase, rest, run, tokens_of, with_session
from stars_guard.testing._rewinding_tests import RewindingTests

__all__ = ["BackendTests"]


class BackendTests(RewindingTests, BackendCase):
    """Inherit from it, and say in a fixture which backend is tested.

    .. code-block:: python

        @pytest.fixture(scope="module")
        def engine():
            made = portal.call(lambda: MyBackend.load("model", MyOptions()))
            yield made
            portal.call(made.aclose)

        class TestMyBackend(BackendTests):
            @pytest.fixture
            def backend(self, engine):
                return engine

            @pytest.fixture
            def make(self):
                return lambda: MyBackend.load("model", MyOptions())

    Make the backend on the library's own loop (`stars_guard.calling.portal.call`), where the tests use it. Its answer
    to the request must be 16 tokens long or longer.
    """

    # --- asking

    def test_a_request_without_messages_is_the_callers_error(self) -> None:
        with pytest.raises(InputError):
            OpenRequest(messages=[])

    def test_a_request_takes_fields_by_name_and_has_defaults(self, open_request: OpenRequest) -> None:
        with pytest.raises(TypeError):
            OpenRequest(open_request.messages)  # type: ignore[call-arg]
        assert replace(open_request, seeded=True).messages == open_request.messages

    def test_the_identity_is_text(self, backend: Backend) -> None:
        assert backend.identity
        assert all(isinstance(text, str) for pair in backend.identity.items() for text in pair)

    def test_it_may_be_measured_at_any_time(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check(session: Session) -> None:
            await backend.measure()
            await backend.measure()
            costs = backend.step_costs
            assert costs.at(1) == 1
            assert costs.at(16) >= costs.at(2) >= 1
            (proposal,) = await session.propose([1], 2)
            assert await tokens_of(proposal)

        with_session(backend, open_request, check)

    def test_a_prompt_that_leaves_no_room_is_named(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check() -> None:
            session = await backend.open(open_request)
            assert session.room > 0
            assert session.prompt_tokens >= 0
            size = session.room + session.prompt_tokens
            await session.aclose()
            long = replace(open_request, messages=[Message("user", "word " * size)])
            with pytest.raises(ContextTooLong):
                await backend.open(long)
            again = await backend.open(open_request)
            await again.aclose()

        if backend.supplied:
            pytest.skip("texts that are supplied have no context")
        run(check)

    def test_no_text_of_a_message_becomes_a_control_token(
        self, backend: Backend, open_request: OpenRequest, control_texts: Sequence[str]
    ) -> None:
        async def length(text: str) -> int:
            session = await backend.open(replace(open_request, messages=[Message("user", text)]))
            await session.aclose()
            return session.prompt_tokens

        async def check() -> None:
            plain = await length("a")
            for text in control_texts:
                # it costs one token if it becomes a control token, and several as text
                assert await length(f"a{text}") - plain > 1, text

        if not control_texts:
            pytest.skip("no control_texts were given")
        run(check)

    # --- proposing

    def test_a_proposal_ends_by_itself_at_its_limit(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check(session: Session) -> None:
            for limit in (1, 3):
                (proposal,) = await session.propose([1], limit)
                tokens = await tokens_of(proposal)
                assert 1 <= len(tokens) <= limit
                assert proposal.drawn == len(tokens)
                assert not any(token.last for token in tokens[:-1])
                assert await tokens_of(proposal) == []
                await proposal.aclose()

        with_session(backend, open_request, check)

    def test_each_seed_is_a_proposal_and_none_disturbs_another(
        self, backend: Backend, open_request: OpenRequest, exact: bool
    ) -> None:
        async def check(session: Session) -> None:
            proposals = await session.propose([1, 2, 3], 4)
            assert len(set(map(id, proposals))) == 3
            await proposals[1].aclose()
            first, _, third = [[token.id for token in await tokens_of(proposal)] for proposal in proposals]
            assert first
            assert third
            if exact:
                assert first == third

        with_session(backend, open_request, check)

    def test_tokens_come_after_the_prefix(self, backend: Backend, open_request: OpenRequest, exact: bool) -> None:
        async def check(session: Session) -> None:
            (proposal,) = await session.propose([1], 9)
            whole = await tokens_of(proposal)
            await proposal.aclose()
            parts: list[Token] = []
            for keep, limit in ((2, 3), (3, 3), (0, 2), (1, 4), (3, 3)):
                (proposal,) = await session.propose([1], limit)
                tokens = await tokens_of(proposal)
                assert await session.commit(proposal, keep) == len(tokens) - keep
                parts += tokens[:keep]
            assert [token.id for token in parts] == [token.id for token in whole]
            assert "".join(token.text for token in parts) == "".join(token.text for token in whole)

        if not exact:
            pytest.skip("the same tokens do not come again")
        with_session(backend, open_request, check)

    def test_seeds_give_the_same_tokens_where_the_backend_says_so(
        self, backend: Backend, open_request: OpenRequest
    ) -> None:
        warm = replace(open_request, sampling=Sampling(temperature=1.0), seeded=True)

        async def generated(seeds: Sequence[int], company: int) -> list[list[int]]:
            session = await backend.open(warm)
            others = [await backend.open(warm) for _ in range(company)]
            beside = [(await other.propose([9], 8))[0] for other in others]
            proposals = await session.propose(seeds, 8)
            found = await asyncio.gather(*map(tokens_of, [*proposals, *beside]))
            for opened in (session, *others):
                await opened.aclose()
            return [[token.id for token in tokens] for tokens in found[: len(seeds)]]

        async def check() -> None:
            alone, again, third = [await generated([7], 0), await generated([7], 0), await generated([7, 8], 2)]
            assert alone[0] == again[0] == third[0]

        if not backend.reproducible:
            pytest.skip("the backend promises nothing of its seeds")
        run(check)

    def test_entropies_come_where_they_are_asked_for(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check(session: Session) -> None:
            (proposal,) = await session.propose([1], 4)
            for token in await tokens_of(proposal):
                assert token.entropy is None or token.entropy >= 0

        with_session(backend, replace(open_request, entropies=True), check)

    # --- committing

    def test_only_what_was_generated_can_be_committed(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check(session: Session) -> None:
            (proposal,) = await session.propose([1], 2)
            tokens = await tokens_of(proposal)
            for length in (len(tokens) + 1, -1):
                with pytest.raises(ProtocolError):
                    await session.commit(proposal, length)
            # the failed commits changed nothing
            assert await session.commit(proposal, len(tokens)) == 0
            with pytest.raises(ProtocolError):
                await session.commit(proposal, 1)

        with_session(backend, open_request, check)

    def test_what_is_not_open_cannot_be_committed(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check(session: Session) -> None:
            closed, foreign = await session.propose([1, 2], 2)
            await tokens_of(closed)
            await tokens_of(foreign)
            await closed.aclose()
            with pytest.raises(ProtocolError):
                await session.commit(closed, 1)
            other = await backend.open(open_request)
            with pytest.raises(ProtocolError):
                await other.commit(foreign, 1)
            await other.aclose()
            await session.commit(foreign, 1)

        with_session(backend, open_request, check)

    def test_what_is_thrown_away_is_counted(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check(session: Session) -> None:
            (proposal,) = await session.propose([1], 3, ahead=3)
            await tokens_of(proposal, 3)
            proposal.halt()
            drawn = proposal.drawn
            thrown = await session.commit(proposal, 1)
            # a step that ran while it was halted may still count
            assert drawn - 1 <= thrown <= drawn

        with_session(backend, open_request, check)

    def test_a_proposal_goes_on_where_it_was(self, backend: Backend, open_request: OpenRequest, exact: bool) -> None:
        async def check(session: Session) -> None:
            (proposal,) = await session.propose([1], 9)
            whole = [token.id for token in await tokens_of(proposal)]
            await proposal.aclose()
            (proposal,) = await session.propose([1], 2, ahead=7)
            first = [token.id for token in await tokens_of(proposal, 2)]
            await session.commit(proposal, 2, go_on=True)
            (second, *others) = await session.propose([2, 3], 7)
            assert len(others) == 1
            assert (first[:2] + [token.id for token in await tokens_of(second, 7)])[:9] == whole
            assert [token.id for token in await tokens_of(others[0])] == whole[2:]

        if not exact:
            pytest.skip("the same tokens do not come again")
        with_session(backend, open_request, check)

    def test_a_halted_proposal_does_not_go_on(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check(session: Session) -> None:
            (proposal,) = await session.propose([1], 2, ahead=6)
            await tokens_of(proposal, 2)
            proposal.halt()
            proposal.halt()
            drawn = proposal.drawn
            assert await session.commit(proposal, 1, go_on=True) >= drawn - 1
            (second,) = await session.propose([2], 2)
            assert second is not proposal
            assert await tokens_of(second)

        with_session(backend, open_request, check)

    # --- ending

    @pytest.mark.parametrize(
        "steps", ["h", "c", "hh", "hc", "cc", "hcc", "ch", "i", "ih", "ic", "ihc", "k", "ik", "ihk", "hk", "ikc", "ikh"]
    )
    def test_every_order_of_ending_leaves_the_session_usable(
        self, backend: Backend, open_request: OpenRequest, steps: str
    ) -> None:
        """Iterate, halt, close and commit (k), in this order."""

        async def check(session: Session) -> None:
            (proposal,) = await session.propose([1], 4, ahead=4)
            for step in steps:
                match step:
                    case "i":
                        await tokens_of(proposal, 1)
                    case "h":
                        proposal.halt()
                    case "c":
                        await proposal.aclose()
                    case "k":
                        await session.commit(proposal, min(1, proposal.drawn))
            await tokens_of(proposal)
            (after,) = await session.propose([2], 2)
            assert await tokens_of(after)

        with_session(backend, open_request, check)

    def test_a_cancelled_iteration_leaves_the_session_usable(
        self, backend: Backend, open_request: OpenRequest, exact: bool
    ) -> None:
        async def check(session: Session) -> None:
            (proposal,) = await session.propose([1], 4)
            reading = asyncio.ensure_future(tokens_of(proposal))
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait({reading})
            await tokens_of(proposal)
            assert 1 <= proposal.drawn <= 4
            await proposal.aclose()
            (again,) = await session.propose([1], 4)
            assert await tokens_of(again)

        with_session(backend, open_request, check)

    def test_a_closed_session_says_so(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check() -> None:
            session = await backend.open(open_request)
            (proposal,) = await session.propose([1], 64)
            await session.aclose()
            await session.aclose()
            await tokens_of(proposal)
            with pytest.raises(ProtocolError):
                await session.propose([1], 2)
            with pytest.raises(ProtocolError):
                await session.commit(proposal, 0)
            await proposal.aclose()

        run(check)

    def test_many_sessions_at_once(self, backend: Backend, open_request: OpenRequest, exact: bool) -> None:
        async def one(seed: int) -> list[int]:
            session = await backend.open(open_request)
            ids: list[int] = []
            for limit in (2, 3):
                rejected, kept = await session.propose([seed, seed + 1], limit)
                await tokens_of(rejected, 1)
                await rejected.aclose()
                tokens = await tokens_of(kept)
                await session.commit(kept, len(tokens))
                ids += [token.id for token in tokens]
            await session.aclose()
            return ids

        async def check() -> None:
            alone = await one(1)
            crowd = await asyncio.gather(*(one(seed) for seed in range(8)))
            assert all(crowd)
            if exact:
                assert crowd == [alone] * 8

        run(check)

    def test_closing_ends_the_calls_that_run(
        self, make: Callable[[], Awaitable[Backend]] | None, open_request: OpenRequest
    ) -> None:
        async def check() -> None:
            assert make is not None
            backend = await make()
            session = await backend.open(open_request)
            (proposal,) = await session.propose([1], 100_000 if session.room > 100_000 else session.room)
            await tokens_of(proposal, 1)
            waiting = asyncio.ensure_future(rest(proposal))
            await asyncio.sleep(0)
            await backend.aclose()
            await backend.aclose()
            if not backend.supplied:
                with pytest.raises(BackendUnavailable):
                    await waiting
            assert backend.dead
            for again in (lambda: session.propose([1], 2), lambda: backend.open(open_request)):
                with pytest.raises(BackendUnavailable):
                    await again()
            await proposal.aclose()
            await session.aclose()

        if make is None:
            pytest.skip("no function that makes another backend was given")
        run(check)
