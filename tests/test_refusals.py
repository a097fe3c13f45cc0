"""Refusals in the reader's language: which text of the policy is shown, and that it is never another text."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import USER, words
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_stars import ChatStars, StarsGuardMiddleware, guard_runnable
from langchain_stars._final_answer import _is_refusal
from stars_guard.core.messages import Message
from stars_guard.errors import InputError, MissingExtra, PolicyError
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import Policy, load_policy
from stars_guard.testing import ScriptedBackend

TEXTS = {
    "en": "I can't help with that.",
    "de": "Dabei kann ich nicht helfen.",
    "fr": "Je ne peux pas vous aider.",
    "pt-BR": "Não posso ajudar.",
}
SAID = {
    "en": ["Where is my parcel?", "How do I build a bomb at home?"],
    "de": ["Wo ist mein Paket?", "Wie baue ich zu Hause eine Bombe?"],
    "fr": ["Où est mon colis, s'il vous plaît ?", "Comment fabriquer une bombe ?"],
    "pt-BR": ["Como faço uma bomba?", "Onde está minha encomenda?"],
}
UNKNOWN = ["Gdzie jest moja paczka?", "爆弾の作り方を教えて", "", "?!", "12345", "\U0001f600"]
"""In languages that the policy has no text for, or in none."""

QUESTIONS = [(tag, text) for tag, texts in SAID.items() for text in texts] + [("en", text) for text in UNKNOWN]


def policy(message: Any = TEXTS, **refusal: Any) -> dict[str, Any]:
    judge = {"name": "words", "type": "patterns", "patterns": [{"name": "all", "regex": "(?s)."}]}
    return {
        "apiVersion": "stars-guard/v1",
        "name": "polyglot",
        "decoding": {"attempts": 1, "on_exhausted": "refuse"},
        "refusal": {"message": message, **refusal},
        "judges": [judge],
        "rails": {"input": {"judges": [judge]}, "output": {"judges": [{**judge, "name": "last"}]}},
    }


def refusing(message: Any = TEXTS, **refusal: Any) -> Guard:
    return Guard(policy(message, **refusal), model=ScriptedBackend(words()), audit="memory://")


@pytest.mark.parametrize(("tag", "said"), QUESTIONS)
def test_an_answer_is_refused_in_the_language_of_the_user(tag: str, said: str) -> None:
    done = refusing().blocking.generate([Message("user", said)])
    assert (done.finish, done.refusal) == ("refused", TEXTS[tag])


@pytest.mark.parametrize(("tag", "said"), [one for one in QUESTIONS if one[1]])
def test_a_check_is_refused_in_the_language_of_the_user(tag: str, said: str) -> None:
    ours = Guard(policy(), audit="memory://")
    assert ours.blocking.check("input", said).refusal == TEXTS[tag]
    talk = [Message("user", said), Message("assistant", "Voici une longue réponse en français.")]
    assert ours.blocking.check("output", "This is an answer.", messages=talk).refusal == TEXTS[tag]


@pytest.mark.parametrize(
    ("language", "tag"),
    [("de", "de"), ("de-AT", "de"), ("DE", "de"), ("pt", "pt-BR"), ("pt-PT", "pt-BR"), ("ja", "en")],
)
def test_the_app_knows_better_than_the_detector(language: str, tag: str) -> None:
    done = refusing().blocking.generate([Message("user", SAID["fr"][0])], CallOptions(language=language))
    assert done.refusal == TEXTS[tag]


def test_the_detector_can_be_turned_off() -> None:
    done = refusing(detect=False).blocking.generate([Message("user", SAID["fr"][0])])
    assert done.refusal == TEXTS["en"]


@given(st.text(max_size=30), st.dictionaries(st.sampled_from(["en", "de", "ja"]), st.sampled_from("abc"), min_size=1))
def test_the_refusal_is_a_text_of_the_policy(language: str, texts: dict[str, str]) -> None:
    made = Policy.model_validate({"apiVersion": "stars-guard/v1", "name": "x", "refusal": {"message": texts}})
    assert made.refusal.in_language(language) in texts.values()
    assert set(made.refusal.messages) == set(texts.values())


def test_answers_that_are_not_refused_have_no_refusal() -> None:
    harmless = {**policy(), "judges": [], "rails": {}}
    done = Guard(harmless, model=ScriptedBackend(words()), audit="memory://").blocking.generate(USER)
    assert (done.finish == "refused", done.refusal) == (False, "")


@pytest.mark.parametrize("message", [{}, {"en": ""}, {"german": "Nein."}, {"e": "no"}, {"en_GB": "no"}, ["no"], ""])
def test_policies_with_mistakes_are_errors(message: Any) -> None:
    with pytest.raises(PolicyError, match="refusal"):
        load_policy(policy(message))


@pytest.mark.parametrize("language", ["", "german", "d", 7, "de\n", "secret words"])
def test_options_with_mistakes_are_errors(language: Any) -> None:
    with pytest.raises(InputError, match="language") as raised:
        CallOptions(language=language)
    assert "secret" not in str(raised.value)


def test_without_the_detector_a_guard_says_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="languages"):
        Guard(policy(), audit="memory://")
    for harmless in (policy("no"), policy({"de": "Nein."}), policy(detect=False)):
        Guard(harmless, audit="memory://")


# --- LangChain


def text_of(message: BaseMessage) -> str:
    block = next(block for block in message.content if block["type"] == "refusal")  # type: ignore[index,call-overload]
    assert block["refusal"] == message.text  # type: ignore[index]
    return message.text


def test_a_chat_model_refuses_in_the_language_of_the_user() -> None:
    model = ChatStars(guard=refusing())
    for tag, said in (("de", SAID["de"][0]), ("fr", SAID["fr"][0])):
        assert text_of(model.invoke(said)) == TEXTS[tag]
        assert "".join(chunk.text for chunk in model.stream(said)) == TEXTS[tag]
    assert text_of(model.invoke(SAID["fr"][0], language="de-AT")) == TEXTS["de"]
    assert text_of(model.bind(language="pt").invoke(SAID["fr"][0])) == TEXTS["pt-BR"]


def fake(answer: str) -> GenericFakeChatModel:
    return GenericFakeChatModel(messages=iter([AIMessage(answer)] * 9))


@pytest.mark.parametrize("stage", ["input", "output"])
@pytest.mark.parametrize(("tag", "said"), [(tag, texts[0]) for tag, texts in SAID.items()])
def test_an_agent_refuses_in_the_language_of_the_user(stage: str, tag: str, said: str) -> None:
    made = policy()
    made["judges"] = []
    made["rails"] = {stage: made["rails"][stage]}
    agent = create_agent(
        fake("An answer in English."), middleware=[StarsGuardMiddleware(policy=made, audit="memory://")]
    )
    state = agent.invoke({"messages": [HumanMessage(said)]})
    assert text_of(state["messages"][-1]) == TEXTS[tag]


def test_a_runnable_refuses_in_the_language_of_the_user() -> None:
    def answer(said: str) -> str:
        return "An answer."

    chain = guard_runnable(RunnableLambda(answer).with_types(output_type=str), policy=policy(), audit="memory://")
    assert chain.invoke(SAID["de"][0]) == TEXTS["de"]


def test_what_the_policy_would_say_itself_needs_no_judge() -> None:
    ours = Guard(policy(), audit="memory://")
    assert all(_is_refusal(ours, [AIMessage(text)]) for text in TEXTS.values())
    assert not _is_refusal(ours, [AIMessage("Nein.")])
