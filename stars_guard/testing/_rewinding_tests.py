"""What a session must do that can take back what was committed, and follow another session."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stars_guard.backends.base import Backend, OpenRequest, Session
from stars_guard.core.messages import Message
from stars_guard.core.segments import Token
from stars_guard.errors import ProtocolError
from stars_guard.testing._backend_case import BackendCase, tokens_of, with_session

__all__ = ["RewindingTests"]


class RewindingTests(BackendCase):
    """Left out for sessions that do not say that they have `rewinds`."""

    @pytest.mark.parametrize(("kept", "taken"), [(6, 1), (6, 4), (3, 3), (2, 0)])
    def test_what_was_committed_can_be_taken_back(
        self, backend: Backend, open_request: OpenRequest, exact: bool, kept: int, taken: int
    ) -> None:
        async def check(session: Session) -> None:
            _needs_rewinds(session)
            first = await _committed(session, kept)
            whole = await _next(session, 4)
            await session.rewind(taken)
            again = await _next(session, 4 + taken)
            if exact:
                # tokens are the likeliest, so the same ones come again
                assert [*first[kept - taken :], *whole][: 4 + taken] == again[: 4 + taken]

        with_session(backend, open_request, check)

    def test_it_goes_back_after_segments_that_went_on(
        self, backend: Backend, open_request: OpenRequest, exact: bool
    ) -> None:
        async def check(session: Session) -> None:
            _needs_rewinds(session)
            first = await _committed(session, 2)
            (proposal,) = await session.propose([1], 2, ahead=6)
            second = [token.id for token in await tokens_of(proposal, 2)]
            await session.commit(proposal, 2, go_on=True)
            (running, *_) = await session.propose([2], 2)
            await tokens_of(running, 1)
            with pytest.raises(ProtocolError):
                await session.rewind(1)
            await running.aclose()
            await session.rewind(3)
            assert await _next(session, 3) == [first[1], *second[:2]] or not exact

        with_session(backend, open_request, check)

    def test_a_session_follows_another(self, backend: Backend, open_request: OpenRequest, exact: bool) -> None:
        async def check(session: Session) -> None:
            _needs_rewinds(session)
            other = await backend.open(replace(open_request, lazy=True))
            try:
                tokens = await _tokens(session, 5)
                await other.follow(tokens[:3])
                await other.follow(tokens[3:])
                expected = await _next(session, 3)
                found = await _next(other, 3)
                assert found == expected or not exact
                await other.rewind(4)
                assert await _next(other, 4) == [token.id for token in tokens[1:]] or not exact
            finally:
                await other.aclose()

        with_session(backend, open_request, check)

    def test_one_under_another_conversation_does_too(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check(session: Session) -> None:
            _needs_rewinds(session)
            asked = replace(open_request, messages=[Message("system", "Be brief."), *open_request.messages], lazy=True)
            other = await backend.open(asked)
            try:
                await other.follow(await _tokens(session, 3))
                (proposal,) = await other.propose([3], 2)
                written = await tokens_of(proposal)
                await other.commit(proposal, len(written))
                await session.follow(written)
                assert await _next(session, 1)
            finally:
                await other.aclose()

        with_session(backend, open_request, check)

    def test_what_is_not_there_cannot_be_taken_back(self, backend: Backend, open_request: OpenRequest) -> None:
        async def check(session: Session) -> None:
            _needs_rewinds(session)
            await _committed(session, 2)
            for tokens in (3, -1):
                with pytest.raises(ProtocolError):
                    await session.rewind(tokens)
            (proposal,) = await session.propose([1], 2)
            with pytest.raises(ProtocolError):
                await session.follow([Token(1, "a")])
            await proposal.aclose()
            await session.rewind(2)
            with pytest.raises(ProtocolError):
                await session.rewind(1)

        with_session(backend, open_request, check)


def _needs_rewinds(session: Session) -> None:
    if not session.rewinds:
        pytest.skip("this session cannot go back")


async def _tokens(session: Session, count: int) -> list[Token]:
    """Generate and commit."""
    (proposal,) = await session.propose([1], count)
    tokens = await tokens_of(proposal)
    await session.commit(proposal, len(tokens))
    return tokens


async def _committed(session: Session, count: int) -> list[int]:
    return [token.id for token in await _tokens(session, count)]


async def _next(session: Session, count: int) -> list[int]:
    """The tokens that would come next."""
    (proposal,) = await session.propose([7], count)
    found = [token.id for token in await tokens_of(proposal)]
    await proposal.aclose()
    return found
