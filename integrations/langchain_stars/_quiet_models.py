"""Models as a guard runs them: without callbacks of their own, which would hear what is rejected, and without caches.

Callbacks that a model was made with are called for the answer that is released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseLanguageModel
from langchain_core.runnables import Runnable
from pydantic import BaseModel

from langchain_stars._hidden_runs import quiet_runtime
from langchain_stars._judged_cache import keep_out_of_cache
from langchain_stars._run_tracking import RunTracking

if TYPE_CHECKING:  # a chain needs no agent
    from langchain.agents.middleware.types import ModelRequest

__all__ = ["QuietModels", "quiet_models"]

_MOST = 16


def quiet_models(value: Any) -> Any:
    """A runnable whose models have no callbacks of their own. Caches of theirs are kept from what is not judged.

    A part that has none stays the same object. So does what is not LangChain's own composition, such as a graph.
    """
    match value:
        case BaseLanguageModel():
            keep_out_of_cache(value)
            return value.model_copy(update={"callbacks": None}) if value.callbacks else value
        case BaseModel() if isinstance(value, Runnable):
            parts = {name: getattr(value, name) for name in type(value).model_fields}
            if isinstance(config := parts.get("config"), Mapping):
                parts["config"] = {name: part for name, part in config.items() if name != "callbacks"}
            if factories := parts.pop("config_factories", None):  # how `with_listeners` adds callbacks
                parts["config_factories"] = [partial(_without_callbacks, factory) for factory in factories]
            found = {name: quiet_models(part) for name, part in parts.items()}
            changes = {name: part for name, part in found.items() if _differs(part, getattr(value, name))}
            return value.model_copy(update=changes) if changes else value
        case Mapping():
            items = {key: quiet_models(part) for key, part in value.items()}
            return items if any(_differs(items[key], part) for key, part in value.items()) else value
        case list() | tuple():
            parts_of = [quiet_models(part) for part in value]
            if not any(map(_differs, parts_of, value)):
                return value
            return tuple(parts_of) if isinstance(value, tuple) else parts_of
        case _:
            return value


def _without_callbacks(factory: Callable[[Any], Any], config: Any) -> dict[str, Any]:
    return {name: part for name, part in factory(config).items() if name != "callbacks"}


def _differs(new: Any, old: Any) -> bool:
    return new is not old and not (isinstance(new, dict) and new.keys() == getattr(old, "keys", tuple)() and new == old)


class QuietModels:
    """The quiet form of each model that an agent is given, the same at each call, because a model may have a state."""

    def __init__(self) -> None:
        self._known: list[tuple[Any, Any]] = []

    def request(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        """The request with a quiet model, and a runtime that writes nowhere.

        So is every request that is made from it, with whichever model.
        """
        from langchain.agents.middleware.types import ModelRequest

        quiet = self

        class QuietRequest(ModelRequest[Any]):
            def __init__(self, *, model: Any, **kwargs: Any) -> None:
                super().__init__(model=quiet.of(model), **{**kwargs, "runtime": quiet_runtime(kwargs.get("runtime"))})

            def __setattr__(self, name: str, value: Any) -> None:
                quieted = {"model": quiet.of, "runtime": quiet_runtime}.get(name, lambda same: same)
                super().__setattr__(name, quieted(value))

        return QuietRequest(**{field.name: getattr(request, field.name) for field in fields(request)})

    def of(self, model: Any) -> Any:
        """The quiet form of a model, or the model itself where its runs may be shown."""
        if isinstance(model, RunTracking) and model._listener is not None:
            return model
        for known, quiet in self._known:
            if known is model:
                return quiet
        quiet = quiet_models(model)
        if quiet is not model:
            self._known = [*self._known[1 - _MOST :], (model, quiet)]
        return quiet
