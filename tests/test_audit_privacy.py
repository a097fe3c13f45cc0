"""What of a text is written: modes by kind of text, digests with a key, and encryption at rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import guard, policy, rewarding, vetoing, words
from cryptography.fernet import Fernet
from postgres import Postgres, postgres

from stars_guard.audit import Content, Filter, MemoryStore, Text, open_store
from stars_guard.audit.chained_store import ChainedStore
from stars_guard.audit.keys import ENCRYPTION_VARIABLE, KEY_VARIABLE, audit_keys, cipher
from stars_guard.auditing.verification import verify
from stars_guard.core.messages import Message
from stars_guard.errors import AuditError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.policy.layers import loosened
from stars_guard.testing.scripted import ScriptedBackend

__all__ = ["postgres"]

ASK = [Message("user", "I am zebedee at zeb@example.com")]


def kept(**audit: Any) -> list[Any]:
    made = guard(rewarding(), vetoing(), backend=ScriptedBackend(words(8)), audit=audit)
    made.blocking.generate(ASK, CallOptions(seed=3))
    assert isinstance(made.audit, MemoryStore)
    (record,) = made.audit.records
    pairs = [(s, a) for s in record.segments for a in s.attempts]
    accepted = [a.text for s, a in pairs if a.attempt == s.kept]
    rejected = [a.text for s, a in pairs if a.attempt != s.kept]
    assert rejected
    return [record.prompt[0].content, record.answer, accepted, rejected]


def test_each_kind_of_text_has_its_mode() -> None:
    prompt, answer, accepted, rejected = kept(content={"prompt": "redacted", "rejected": "hash"})
    assert prompt.content == "I am zebedee at [EMAIL]"
    assert answer.content == "".join(text.content for text in accepted)
    assert all(text.content is None and text.sha256 for text in rejected)
    prompt, answer, accepted, rejected = kept(content={"accepted": "none", "prompt": "none"})
    assert prompt == Text(chars=31)
    assert answer.content is None
    assert {(text.content, text.sha256) for text in accepted} == {(None, None)}
    assert all(text.content is not None for text in rejected)


async def test_what_comes_in_is_a_prompt_whether_it_passes_or_not() -> None:
    patterns = {"name": "no-zeb", "type": "patterns", "patterns": [{"name": "zeb", "regex": "zeb"}]}
    made = Guard(
        {**policy(audit={"content": {"prompt": "none"}}), "rails": {"input": {"judges": [patterns]}}},
        model=ScriptedBackend(words()),
        audit=MemoryStore(),
    )
    for said in ("I am zebedee", "I am who"):
        await made.check("input", said)
    assert isinstance(made.audit, MemoryStore)
    for record in made.audit.records:
        assert record.stage == "input"
        assert record.answer.content is record.segments[0].attempts[0].text.content is None


@pytest.mark.parametrize("kind", ["jsonl", "sqlite", "postgresql"])
def test_encrypted_texts_are_nowhere_in_clear(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    first, second = (Fernet.generate_key().decode() for _ in range(2))
    monkeypatch.setenv(ENCRYPTION_VARIABLE, first)
    url = f"{kind}://{tmp_path}/audit"
    if kind == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        url = server.database()
    made = Guard(policy(audit={"encrypt": True}), model=ScriptedBackend(words(8)), judges=[rewarding()], audit=url)
    done = made.blocking.generate(ASK, CallOptions(seed=3))
    store = open_store(url)
    assert isinstance(store, ChainedStore)
    record = store.get(done.call_id)
    assert record.prompt[0].content.text == ASK[0].content
    assert record.prompt[0].content.whole
    assert record.answer.text == done.text
    assert store.search(Filter(text="zebedee")) == []
    assert store.search(Filter())[0].preview == (ASK[0].content if kind == "jsonl" else None)
    dump = repr([*store.entries()]) + repr(record) + record.model_dump_json()
    assert not any(word in dump for word in ("zeb", "good", "fine", first))
    for file in tmp_path.iterdir():
        assert not any(word in file.read_bytes() for word in (b"zebedee", b"good ", b"fine "))
    # the chain is over what is written: it holds without the key, and after the key was changed
    monkeypatch.setenv(ENCRYPTION_VARIABLE, f"{second} {first}")
    assert store.get(done.call_id).answer.text == done.text
    for keys in (second, None):
        monkeypatch.delenv(ENCRYPTION_VARIABLE) if keys is None else monkeypatch.setenv(ENCRYPTION_VARIABLE, keys)
        assert verify(store).problem is None
        locked = store.get(done.call_id)
        assert (locked.answer.text, locked.answer.whole) == (None, False)
        assert locked.answer.chars == len(done.text)
    store.close()


def test_without_a_key_nothing_is_written_that_was_to_be_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENCRYPTION_VARIABLE, raising=False)
    with pytest.raises(AuditError, match="there is no key"):
        guard(audit={"encrypt": True})
    monkeypatch.setenv(ENCRYPTION_VARIABLE, "not-a-key")
    with pytest.raises(AuditError, match="is not 32 bytes") as info:
        Content(encrypt=True)
    assert "not-a-key" not in str(info.value)


def test_keys_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    key = Fernet.generate_key().decode()
    monkeypatch.setenv(ENCRYPTION_VARIABLE, key)
    monkeypatch.setenv(KEY_VARIABLE, "hush")
    assert key not in repr(cipher())
    assert "hush" not in repr(audit_keys())
    # a digest is no seal: neither key can be had from what the other makes
    (one,) = audit_keys()
    assert len({one.seal(b"seal"), one.digest(b"seal"), one.seal(b"digest"), one.digest(b"digest"), one.id}) == 5


def test_keeping_more_text_or_fewer_records_is_a_loosening() -> None:
    base: dict[str, Any] = {"apiVersion": "stars-guard/v1", "name": "x"}

    def change(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        policies = [load_policy({**base, "audit": audit}) for audit in (before, after)]
        return [text for _, _, text in loosened(*policies)]

    assert change({"content": "hash"}, {"content": {"rejected": "redacted", "prompt": "hash", "accepted": "none"}}) == [
        "rejected: hash -> redacted"
    ]
    assert change({"encrypt": True}, {}) == ["true -> false"]
    assert change({}, {"durability": "batch", "on_error": "drop"}) == ["every-call -> batch", "spool -> drop"]
    assert change({}, {"encrypt": True, "content": "none", "on_error": "block"}) == []
