"""The options of judges that hold a model, here or on a vLLM server."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import Field, SecretStr

from stars_guard.errors import PolicyError
from stars_guard.scorers.options import JudgeOptions

__all__ = ["ModelOptions", "ServedModelOptions"]


class ModelOptions(JudgeOptions):
    """A judge with a model of its own."""

    shared: ClassVar[bool] = True

    model: str = Field(min_length=1, description="a Hugging Face directory or name; of a server, the name it serves")
    revision: str | None = None


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
