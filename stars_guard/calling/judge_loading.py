"""From what a policy declares to the judges that do it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from stars_guard.concealing import shows_concealed
from stars_guard.core.vocabulary import Rail
from stars_guard.engines.sharing import Shared
from stars_guard.errors import PolicyError, ScorerError
from stars_guard.policy import Policy
from stars_guard.scorers.base import Scorer
from stars_guard.scorers.cascade import Cascade, Judge
from stars_guard.scorers.options import JudgeOptions

__all__ = ["check_allowed", "load_cascade", "load_judges", "load_rail"]

_scorers: Shared[Scorer] = Shared()
_of_shadows: Shared[Scorer] = Shared()
"""Scorers of shadows. They are not those of live policies, so that what a shadow asks changes nothing that a live judge
keeps: its caches, its queue, and whether it is left alone after failures."""


async def load_cascade(policy: Policy, *, allow_python: bool = False) -> Cascade:
    """Load the judges of answers: the policy's own and those of its output rail. Raises what `load_judges` does."""
    return await load_rail(policy, "answer", allow_python=allow_python)


async def load_rail(policy: Policy, rail: Rail, *, allow_python: bool = False, shadow: bool = False) -> Cascade:
    """Load the judges of answers or of a stage. The other arguments, and what it raises, are those of `load_judges`."""
    rails = dict(policy.rails.items())
    judges = (*policy.judges, *rails["output"].judges) if rail == "answer" else rails[rail].judges
    return await load_judges(judges, allow_python=allow_python, shadow=shadow)


async def load_judges(judges: Sequence[JudgeOptions], *, allow_python: bool = False, shadow: bool = False) -> Cascade:
    """Load the judges that a policy declares. Close the cascade to free them.

    Args:
        allow_python: whether the policy may name Python code to run.
        shadow: whether the policy is a shadow, which shares no scorer with live policies.

    Raises:
        PolicyError: a judge cannot be made from what the policy says.
        ScorerError: a judge's model cannot be loaded.
    """
    async with AsyncExitStack() as opened:
        loaded = [await _load(options, opened, allow_python, _of_shadows if shadow else _scorers) for options in judges]
        return Cascade(loaded, opened.pop_all())


def check_allowed(judges: Iterable[JudgeOptions], *, allow_python: bool) -> None:
    """Whether a policy may have these judges.

    Args:
        allow_python: whether it may name Python code to run.

    Raises:
        PolicyError: one of them names code, or what a policy alone may not decide.
    """
    for options in judges:
        if not allow_python and (problem := options.not_allowed()):
            raise PolicyError(
                f"judge {options.name!r}: {problem}",
                hint="pass allow_python=True where the guard is made",
            )


async def _load(options: JudgeOptions, opened: AsyncExitStack, allow_python: bool, scorers: Shared[Scorer]) -> Judge:
    check_allowed([options], allow_python=allow_python)
    failure: Exception | None = None
    try:
        lease = await scorers.lease(options.key if options.shared else object(), options.load)
    except Exception as exc:
        failure = exc
    if failure is not None:
        # out here, because it would be the context of what is raised
        raise _without_concealed(failure)
    opened.push_async_callback(lease.aclose)
    return Judge(
        options.rule,
        lease.part,
        timeout=options.timeout,
        tail=options.tail,
        every=options.every,
        final=options.asked_last,
        conversation=options.scope == "conversation",
    )


def _without_concealed(exc: BaseException) -> BaseException:
    """An exception, and those that led to it, without what was given to `conceal`.

    It is the same exception, unless its own text shows a value. The chain behind it ends before the first one that
    does. Raise it outside of the ``except`` block, or the context is there again.
    """
    if shows_concealed(exc):
        return ScorerError(f"{type(exc).__name__}: {exc}")
    seen: set[int] = set()
    here: BaseException | None = exc
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        for field in ("__cause__", "__context__"):
            behind = getattr(here, field)
            if behind is not None and shows_concealed(behind):
                setattr(here, field, None)
        here = here.__cause__ or here.__context__
    return exc
