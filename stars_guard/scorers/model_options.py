"""The options of judges that hold a model, here or on a vLLM server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, SecretStr, field_validator

from stars_guard.engines.addresses import Address
from stars_guard.engines.vllm_arguments import CHANGES_SCORES, HARMLESS, not_harmless
from stars_guard.errors import PolicyError
from stars_guard.scorers.options import JudgeOptions, Loosening

__all__ = ["ModelOptions", "ServedModelOptions", "reads_less"]


def reads_less(before: int | None, after: int | None, usual: tuple[int, int]) -> bool:
    """Whether a child's ``max_length`` may be shorter than its parent's.

    Args:
        usual: the least and the most that None may mean, which the model decides.
    """
    return before != after and (usual[0] if after is None else after) < (usual[1] if before is None else before)


class ModelOptions(JudgeOptions):
    """A judge with a model of its own."""

    shared: ClassVar[bool] = True

    model: str = Field(min_length=1, description="a Hugging Face directory or name; of a server, the name it serves")
    revision: str | None = Field(None, description="of the model on the hub")


class ServedModelOptions(ModelOptions):
    """A judge whose model may also run on a vLLM server.

    Attributes:
        serve_arguments: what ``vllm serve`` needs for such a model, besides its name.
        vllm_only: whether the model runs nowhere else.
    """

    serve_arguments: ClassVar[str] = ""
    vllm_only: ClassVar[bool] = False

    base_url: str | None = Field(None, pattern="^https?://", description="of a vLLM server")
    api_key_env: str | None = Field(None, description="the environment variable that holds the server's API key")

    @field_validator("base_url")
    @classmethod
    def _is_a_url(cls, base_url: str | None) -> str | None:
        if base_url is not None:
            Address.of(base_url)
        return base_url

    @property
    def engine_arguments(self) -> Mapping[str, Any]:
        """What the field ``engine`` of a derived class gives, where it has one."""
        return getattr(self, "engine", None) or {}

    def loosenings(self, child: Self) -> Iterator[Loosening]:
        before, after = self.engine_arguments, child.engine_arguments
        for name in sorted({*before, *after}):
            technical = name in HARMLESS and name not in CHANGES_SCORES and child.on_error != "ignore"
            if before.get(name) != after.get(name) and not technical:
                yield "engine", f"{name}: another engine than the parent's"

    def not_allowed(self) -> str:
        others = not_harmless(self.engine_arguments)
        return f"engine: {', '.join(others)}: not for a policy alone to decide" if others else super().not_allowed()

    def api_key(self) -> SecretStr | None:
        """The server's key.

        Raises:
            PolicyError: the environment has no such variable.
        """
        if not self.api_key_env:
            return None
        key = os.environ.get(self.api_key_env)
        if not key:
            raise PolicyError(
                f"judge {self.name!r}: the environment has no {self.api_key_env}", hint="set it to the API key"
            )
        return SecretStr(key)
