"""Our own scorers keep to what `ScorerTests` asks of every scorer."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import printed_by
from guard_models import random_guard
from pydantic import SecretStr
from transformers import AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from stars_guard.core.segments import Passage
from stars_guard.engines.embedded_models import generator_dir
from stars_guard.scorers.base import Rating, Scorer
from stars_guard.scorers.guard_model import GuardModelOptions
from stars_guard.scorers.http import HttpScorer
from stars_guard.scorers.paths import PathScorer
from stars_guard.scorers.patterns import Pattern, PatternScorer
from stars_guard.scorers.pii import KINDS, PiiScorer
from stars_guard.scorers.python import load_python
from stars_guard.scorers.sequence_classifier import SequenceClassifierOptions
from stars_guard.scorers.shell import ShellOptions
from stars_guard.scorers.sql import SqlOptions
from stars_guard.scorers.urls import UrlsOptions
from stars_guard.testing import FunctionScorer, ScorerTests


def length(passage: Passage) -> int:
    return len(passage.answer)


async def shouting(passage: Passage) -> bool:
    return passage.answer.isupper()


class TestPatterns(ScorerTests):
    samples = ("the bomb, the BOMB", "bomb")

    async def make(self) -> Scorer:
        return PatternScorer([Pattern(name="bomb", regex="bomb", flags="i"), Pattern(name="any", regex="日|b")])


class TestPii(ScorerTests):
    telltale = "jane.doe@mail.example.org"
    samples = ("mail jane.doe@mail.example.org or call +44 20 7946 0958", "card 4111 1111 1111 1111 at 10.0.0.1")

    async def make(self) -> Scorer:
        return PiiScorer(KINDS)


class TestPaths(ScorerTests):
    samples = ("cat /etc/passwd ../x ~/.ssh", "ls /srv/app")
    telltale = "/etc/passwd"

    async def make(self) -> Scorer:
        return PathScorer(["/srv/app"])


class TestShell(ScorerTests):
    async def make(self) -> Scorer:
        return await ShellOptions(type="shell", name="shell").load()


class TestSql(ScorerTests):
    async def make(self) -> Scorer:
        return await SqlOptions(type="sql", name="sql").load()


class TestUrls(ScorerTests):
    async def make(self) -> Scorer:
        return await UrlsOptions(type="urls", name="urls").load()


class TestFunction(ScorerTests):
    async def make(self) -> Scorer:
        return FunctionScorer(length)


class TestPythonFunction(ScorerTests):
    async def make(self) -> Scorer:
        return load_python("test_scorer_conformance:length", {})


class TestPythonAsync(ScorerTests):
    samples = ("LOUD",)

    async def make(self) -> Scorer:
        return load_python("test_scorer_conformance:shouting", {})


class TestHttp(ScorerTests):
    secrets = ("sk-secret", "sk-query", "pw")

    url = ""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def service(cls) -> Iterator[None]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                reply = json.dumps({"score": len(body["text"]) / 10}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cls.url = f"http://user:pw@127.0.0.1:{server.server_address[1]}/?key=sk-query"
        yield
        server.shutdown()
        server.server_close()

    async def make(self) -> Scorer:
        body = {"text": "{answer}", "all": "{messages}"}
        return HttpScorer(self.url, body, "score", headers={"Authorization": SecretStr("sk-secret")})


class TestEncoder(ScorerTests):
    """The embedded reward model, loaded as a policy does: several share it."""

    async def make(self) -> Scorer:
        return await SequenceClassifierOptions(
            type="sequence_classifier", name="reward", model="embedded:reward", weight=1.0
        ).load()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with one logit: it keeps what it has read."""
    where = tmp_path_factory.mktemp("decoder")
    tokenizer = AutoTokenizer.from_pretrained(generator_dir())
    torch.manual_seed(3)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        vocab_size=len(tokenizer),
        num_labels=1,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForSequenceClassification(config).save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


class TestDecoder(ScorerTests):
    where = ""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def model(cls, decoder: Path) -> None:
        cls.where = str(decoder)

    async def make(self) -> Scorer:
        return await SequenceClassifierOptions(
            type="sequence_classifier", name="reward", model=self.where, weight=1.0, batch_size=4
        ).load()


class TestGuardModel(ScorerTests):
    where = ""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def model(cls, embedded_model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        where = tmp_path_factory.mktemp("guard")
        random_guard("qwen3guard", embedded_model, where)
        cls.where = str(where)

    async def make(self) -> Scorer:
        return await GuardModelOptions(
            type="guard_model", name="guard", model=self.where, preset="qwen3guard", reject_above=0.5
        ).load()


def test_the_suite_finds_faults() -> None:
    """A suite that no scorer fails would say nothing."""

    class Broken(FunctionScorer):
        async def score(self, passages: Sequence[Passage]) -> Sequence[Rating]:
            return [Rating(float(len(passages))) for _ in passages]

    class TestBroken(ScorerTests):
        async def make(self) -> Scorer:
            return Broken(length)

    import asyncio

    with asyncio.Runner() as loop:
        suite, scorer = TestBroken(), Broken(length)
        with pytest.raises(AssertionError, match="another score in a batch than alone"):
            suite.test_a_score_does_not_depend_on_its_neighbours(loop, scorer)
        unfinished = FunctionScorer(lambda passage: float("nan"))
        with pytest.raises(AssertionError, match="finite"):
            suite.test_texts_may_be_empty(loop, unfinished)
        scorer.identity = {"kind": "broken", "key": "sk-secret"}
        suite.secrets = ("sk-secret",)
        with pytest.raises(AssertionError, match="a secret is shown"):
            suite.test_identity_is_text_and_holds_no_secret(scorer)


def test_the_doubles_need_no_pytest() -> None:
    code = "import sys, stars_guard, stars_guard.testing; print('pytest' in sys.modules, 'blockbuster' in sys.modules)"
    assert printed_by(code) == "False False"
