"""Parts of guardrails that ask no model: ours and LangChain's in this process, others in environments of their own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import PIIDetectionError, PIIMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from benchmarks.peers.compare import CLIENTS, python_of
from benchmarks.peers.compare import Peer as Installed
from benchmarks.scorecard.generated_secrets import KEYS, patterns_of_keys
from langchain_stars import StarsGuardMiddleware
from stars_guard.audit import MemoryStore
from stars_guard.scorers.patterns import PatternScorer
from stars_guard.scorers.pii import KINDS, PiiScorer

__all__ = ["PEERS", "VIEWS", "Peer", "found_by", "streamed", "streamed_by"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A guardrail.

    Attributes:
        kinds: of secrets that it knows by itself, as `benchmarks.scorecard.generated_secrets` names them.
        client: the script that runs it in an environment of its own; empty for what runs in this process.
        packages: of that environment.
        views: of an agent's stream that it is tried on; of `VIEWS`.
    """

    name: str
    kinds: tuple[str, ...]
    client: str = ""
    packages: tuple[str, ...] = ()
    views: tuple[str, ...] = ()


OURS, LANGCHAIN = "stars-guard", "LangChain PIIMiddleware"
VIEWS = ("messages", "events v3")
BUILT_IN = {"email": "email", "credit_card": "credit_card", "ip_address": "ip"}
"""LangChain's names of our kinds."""

PEERS = (
    Peer(name=f"{OURS}, pii", kinds=KINDS, views=VIEWS),
    Peer(name=LANGCHAIN, kinds=tuple(BUILT_IN), views=VIEWS),
    Peer(name=f"{OURS}, patterns of agent-tools", kinds=KEYS),
    Peer(
        name="openai-guardrails, Secret Keys",
        kinds=KEYS,
        client="openai_secrets",
        packages=("openai-guardrails==0.3.6",),
    ),
    Peer(name="invariant-ai, secrets", kinds=KEYS, client="invariant_secrets", packages=("invariant-ai==0.3.5",)),
)


def found_by(peer: Peer, texts: Sequence[str]) -> list[bool]:
    """Which texts the guardrail flags.

    Raises:
        RuntimeError: it does not install or run.
    """
    if peer.client:
        return _asked(peer, texts)
    if peer.name == LANGCHAIN:
        rules = [PIIMiddleware(kind, strategy="block") for kind in BUILT_IN.values()]
        return [any(rule.detector(text) for rule in rules) for text in texts]
    scorer = PiiScorer(KINDS) if peer.kinds == KINDS else PatternScorer(patterns_of_keys())
    return [bool(scorer.find(text)) for text in texts]


def _asked(peer: Peer, texts: Sequence[str]) -> list[bool]:
    python = python_of(Installed(peer.name, peer.client, peer.packages))
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "texts.json", Path(folder) / "found.json"
        asked.write_text(json.dumps(list(texts)), encoding="utf-8")
        script = CLIENTS / f"{peer.client}.py"
        done = subprocess.run([python, script, asked, answered], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no word"])[-1][:200])
        found: list[bool] = json.loads(answered.read_text(encoding="utf-8"))
    return found


class _Saying(BaseChatModel):
    """Another maker's model, which says what it is given in these pieces."""

    pieces: list[str]

    @property
    def _llm_type(self) -> str:
        return "pieces"

    def _generate(self, messages: list[BaseMessage], *given: Any, **more: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(self.pieces)))])

    def _stream(self, messages: list[BaseMessage], *given: Any, run_manager: Any = None, **more: Any) -> Any:
        for piece in self.pieces:
            chunk = ChatGenerationChunk(message=AIMessageChunk(piece))
            if run_manager:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk


@cache
def _policy(kind: str) -> Any:
    judge = {"name": "data", "type": "pii", "kinds": [kind]}
    return {
        "apiVersion": "stars-guard/v1",
        "name": "peer",
        "decoding": {"attempts": 1, "on_exhausted": "refuse"},
        "refusal": {"message": "#"},
        "judges": [judge],
    }


def streamed_by(peer: Peer, pieces: Sequence[str], kind: str, view: str) -> str:
    """The text of an agent's answer that the reader of a view of its stream gets."""
    if peer.name == LANGCHAIN:
        guard: Any = PIIMiddleware(BUILT_IN[kind], strategy="block", apply_to_input=False, apply_to_output=True)
    else:
        guard = StarsGuardMiddleware(_policy(kind), audit=MemoryStore())
    return streamed(pieces, [guard], view)


def streamed(pieces: Sequence[str], middleware: Sequence[Any], view: str) -> str:
    """The same under any middleware."""
    agent = create_agent(_Saying(pieces=list(pieces)), tools=[], middleware=list(middleware))
    asked: Any = {"messages": [("user", "Tell me.")]}
    given = ""
    try:
        if view == "messages":
            for message, _ in agent.stream(asked, stream_mode="messages"):
                given += str(message.text)
        else:
            for event in agent.stream_events(asked, version="v3"):
                given += "".join(_deltas(event))
    except PIIDetectionError:
        pass  # LangChain's way to end such a run
    return given


def _deltas(value: Any) -> Iterator[str]:
    """The pieces of text in an event."""
    if isinstance(value, Mapping):
        if value.get("type") == "text-delta":
            yield str(value.get("text", ""))
        else:
            for one in value.values():
                yield from _deltas(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _deltas(one)
