"""LangChain's caches, kept away from answers that have not been judged.

A model that runs inside a guard would write its answer to the cache before the guard has judged it, and would give the
same rejected answer at each attempt. So a cache that such a model may reach is put behind a `JudgedCache`. Outside a
guard it is the cache that it was. Inside it finds nothing and keeps nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langchain_core.caches import RETURN_VAL_TYPE, BaseCache
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.language_models import BaseLanguageModel

__all__ = ["JudgedCache", "caches_allowed", "keep_out_of_cache", "no_caches"]

_closed: ContextVar[bool] = ContextVar("stars_guard_no_caches", default=False)


class JudgedCache(BaseCache):
    """A cache that is closed to what runs inside a guard.

    Args:
        cache: the cache that it was. Other attributes are that cache's own.
    """

    def __init__(self, cache: BaseCache) -> None:
        self._cache_behind = cache

    def __getattr__(self, name: str) -> Any:
        if name == "_cache_behind":  # not yet there in a copy that is being made
            raise AttributeError(name)
        return getattr(self._cache_behind, name)

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """What was kept, or None."""
        return None if _closed.get() else self._cache_behind.lookup(prompt, llm_string)

    def update(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """Keep an answer."""
        if not _closed.get():
            self._cache_behind.update(prompt, llm_string, return_val)

    async def alookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        """As `lookup`."""
        return None if _closed.get() else await self._cache_behind.alookup(prompt, llm_string)

    async def aupdate(self, prompt: str, llm_string: str, return_val: RETURN_VAL_TYPE) -> None:
        """As `update`."""
        if not _closed.get():
            await self._cache_behind.aupdate(prompt, llm_string, return_val)

    def clear(self, **kwargs: Any) -> None:
        """Forget all answers."""
        self._cache_behind.clear(**kwargs)

    async def aclear(self, **kwargs: Any) -> None:
        """As `clear`."""
        await self._cache_behind.aclear(**kwargs)


@contextmanager
def no_caches() -> Iterator[None]:
    """Close LangChain's global cache, and those of `keep_out_of_cache`, to what runs inside."""
    cache = get_llm_cache()
    if cache is not None and not isinstance(cache, JudgedCache):
        set_llm_cache(JudgedCache(cache))
    token = _closed.set(True)
    try:
        yield
    finally:
        _closed.reset(token)


@contextmanager
def caches_allowed() -> Iterator[None]:
    """Open the caches again, for a model whose answers are judged before it gives them to a cache."""
    token = _closed.set(False)
    try:
        yield
    finally:
        _closed.reset(token)


def keep_out_of_cache(model: BaseLanguageModel[Any]) -> None:
    """Put a model's own cache behind a `JudgedCache`."""
    if isinstance(model.cache, BaseCache) and not isinstance(model.cache, JudgedCache):
        model.cache = JudgedCache(model.cache)
