"""Directions that are rows of the output layer: what a request to vLLM asks for, and what its answer says.

`stars-guard probe install` writes the directions, and one row of zeros, into output rows of a checkpoint that no token
uses. The logit of such a row is the inner product of hidden state and direction, that of the zero row is 0, and both
log probabilities subtract the same normaliser. So the direction's value is the difference of the two.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from stars_guard.core.directions import Directions
from stars_guard.engines.checkpoints import Installed
from stars_guard.engines.vllm_versions import DIFFERENCES, written
from stars_guard.errors import BackendError, InputError

__all__ = ["BAN", "OutputRows"]

BAN = -100.0
"""The bias on the rows' logits. A server takes no lower one."""


class OutputRows:
    """The rows of one model.

    Args:
        installed: None for a checkpoint without any.
    """

    def __init__(self, installed: Installed | None = None) -> None:
        self._installed = installed

    def __bool__(self) -> bool:
        return self._installed is not None

    def check(self, directions: Sequence[Directions]) -> None:
        """Whether the values of directions are supported.

        Raises:
            InputError: one is not installed.
        """
        if not directions:
            return
        if self._installed is None:
            raise InputError(
                "vLLM gives the values of a probe only for a checkpoint with the probe installed",
                hint="run `stars-guard probe install` and serve its directory; of a server, name the directory in the "
                "option tokenizer too",
            )
        if any(one.digest not in self._installed.probes for one in directions):
            raise InputError(
                "the policy's probe is not the one that is installed in the checkpoint",
                hint="run `stars-guard probe install` with this probe",
            )

    @property
    def bias(self) -> dict[int, float] | None:
        """On which logits each request needs a bias, so that no row is ever generated."""
        return None if self._installed is None else dict.fromkeys(self._installed.ids, BAN)

    def ids(self, directions: Sequence[Directions]) -> list[int]:
        """Whose log probabilities are asked for: of all directions in order, and of the zero row. Empty for none."""
        return list(dict.fromkeys(self._places(directions)))

    def _places(self, directions: Sequence[Directions]) -> list[int]:
        """The id of each direction in order and, last, of the zero row. Empty for none."""
        if not directions or self._installed is None:
            return []
        return [*(one for each in directions for one in self._installed.probes[each.digest]), self._installed.zero]

    def values(self, directions: Sequence[Directions], logprobs: Mapping[int, float]) -> tuple[float, ...]:
        """The directions' values.

        Args:
            logprobs: of the ids that were asked for.

        Raises:
            BackendError: one is missing or not finite.
        """
        places = self._places(directions)
        if not places:
            return ()
        *rows, zero = (logprobs.get(one, -math.inf) for one in places)
        found = tuple(row - zero for row in rows)
        # a server has -9999 in the place of minus infinity
        if zero < -9998 or not all(math.isfinite(value) and abs(value) < 9000 for value in found):
            since = written(DIFFERENCES["server labels"].since)
            raise BackendError(
                "vLLM did not give the log probabilities of the installed probe's rows",
                hint=f"a server must be {since} or newer, run with logprobs_mode raw_logprobs (the default), and serve "
                "the directory that `stars-guard probe install` made",
            )
        return found
