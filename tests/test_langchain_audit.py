"""From LangChain's runs and messages to records."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest
from conftest import policy, rewarding, vetoing, words
from langchain_core.messages import AIMessage

from langchain_stars import ChatStars, get_audit
from stars_guard.audit import open_store
from stars_guard.calling import portal
from stars_guard.errors import AuditError
from stars_guard.guard import Guard
from stars_guard.testing.scripted import ScriptedBackend


@pytest.fixture(params=["jsonl://", "sqlite:///"])
def url(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return f"{request.param}{tmp_path}/audit.log"


@pytest.fixture
def model(url: str) -> ChatStars:
    made = Guard(policy(), model=ScriptedBackend(words()), judges=[rewarding(), vetoing()], audit=url)
    return ChatStars(guard=made)


def test_a_run_and_a_message_lead_to_the_same_record(model: ChatStars, url: str) -> None:
    run_id = uuid.uuid4()
    message = model.invoke("hi", config={"run_id": run_id})
    model.invoke("something else")
    record = get_audit(run_id, url)
    assert record.answer.text == message.text
    assert record.run_id == str(run_id)
    for each in (str(run_id), message, record.call_id, record.call_id[:12]):
        assert get_audit(each, url) == record
    assert get_audit(message, open_store(url)) == record


def test_of_several_records_of_a_run_the_answers_is_meant(model: ChatStars, url: str) -> None:
    run_id = str(uuid.uuid4())
    model.invoke("hi", config={"run_id": uuid.UUID(run_id)})
    answer = get_audit(run_id, url)
    store = open_store(url)
    for stage in ("input", "output"):
        check = answer.model_copy(update={"call_id": stage, "stage": stage})
        portal.call(lambda check=check: store.append(check))
    assert get_audit(run_id, url) == answer
    portal.call(lambda: store.append(answer.model_copy(update={"call_id": "again"})))
    with pytest.raises(AuditError, match="2 records are of the answer"):
        get_audit(run_id, url)


def test_what_has_no_record(model: ChatStars, url: str) -> None:
    model.invoke("hi")
    with pytest.raises(AuditError, match="no records fit"):
        get_audit(uuid.uuid4(), url)
    with pytest.raises(AuditError, match="no audit id"):
        get_audit(AIMessage("from another model"), url)
