"""Programs that run other programs or code: wrappers, shells, interpreters, remote machines and containers."""

from __future__ import annotations

import re
from dataclasses import replace

from stars_guard.parsing._secret_kinds import SECRET_NAME
from stars_guard.parsing._shell_output import output_of
from stars_guard.parsing.program_table import Level
from stars_guard.parsing.shell_arguments import base_name, like, sorted_arguments
from stars_guard.parsing.shell_findings import FINE, Case, Finding, worst
from stars_guard.parsing.shell_words import UNKNOWN, Word
from stars_guard.parsing.word_lists import word_list

__all__ = [
    "cluster",
    "containers",
    "elevated",
    "environment",
    "evaluator",
    "remote",
    "script_file",
    "shell",
    "sourcer",
    "wrapper",
    "xargs",
]

_SPLITS = re.compile(r"-[i0v]*S|--s[a-z-]*(?:=|$)")  # --split-string may be cut short
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_UNIX_SHELLS = frozenset(word_list("running_kinds.unix_shells"))


def environment(case: Case) -> Finding:
    """``env``: another program in another environment, or what the environment holds."""
    words = list(case.command.words[1:])
    if case.name == "printenv":
        names = [word.text for word in words if not word.text.startswith("-")]
        return case.ask("shows secrets") if not names or any(map(SECRET_NAME.search, names)) else FINE
    while words:
        text = words[0].text
        if split := _SPLITS.match(text):
            rest = text[split.end() :]
            return case.verdicts.nested(" ".join([rest, *(word.text for word in words[1:])]))
        if re.fullmatch(r"-[i0v]*[uCa]|--unset|--chdir|--argv0", text):
            del words[:2]
        elif (text.startswith("-") and text != "-") or text == "-" or _ASSIGNMENT.match(text):
            del words[0]
        else:
            break
    return case.verdicts.of_words(tuple(words), case.command) if words else case.ask("shows secrets")


def _inner(case: Case) -> tuple[Word, ...]:
    """The words of the program that a wrapper runs."""
    words = list(case.command.words[1:])
    takes_value = case.entry.takes_value(case.name)
    skip = case.entry.skip
    while words:
        text = words[0].text
        if text == "--":
            del words[0]
        elif text.startswith("-") and text != "-":
            del words[: 2 if text in takes_value else 1]
        elif _ASSIGNMENT.match(text) or skip:
            skip -= not _ASSIGNMENT.match(text)
            del words[0]
        else:
            break
    return tuple(words)


def wrapper(case: Case) -> Finding:
    """``nohup``, ``timeout`` and the like: what counts is the program behind it."""
    texts = [word.text for word in case.command.words]
    if case.name in ("flock", "script") and (flag := next((one for one in ("-c", "--command") if one in texts), "")):
        script = texts[texts.index(flag) + 1 :]
        return case.verdicts.nested(script[0]) if script else FINE
    if case.name == "command" and case.command.words[1:] and case.command.words[1].text in ("-v", "-V"):
        return FINE
    if case.name == "time" and not _inner(case):
        return FINE
    words = _inner(case)
    own = case.command.words[1 : len(case.command.words) - len(words)]
    if case.name == "time" and any(word.text.startswith(("-o", "--o")) for word in own):
        return case.ask("writes a file")
    if case.name in ("watch", "script", "parallel") and len(words) == 1:
        return case.verdicts.nested(words[0].text)
    return case.verdicts.of_words(words, case.command)


def elevated(case: Case) -> Finding:
    """``sudo``: as a wrapper, and a shell for another user is asked about."""
    if case.name in ("su", "runuser"):
        texts = [word.text for word in case.command.words[1:]]
        command = texts[texts.index("-c") + 1] if "-c" in texts[:-1] else None
        return worst([case.ask("becomes another user"), case.verdicts.nested(command) if command else FINE])
    if case.given.has("-i", "-s", "-e", "--edit", "--login", "--shell") and case.name in ("sudo", "doas"):
        return worst([case.ask("becomes another user"), case.verdicts.of_words(_inner(case), case.command)])
    words = _inner(case)
    if not words:
        fine = case.given.has("-l", "-v", "-k", "-K", "--list")
        return FINE if fine else case.ask("becomes another user")
    return case.verdicts.of_words(words, case.command)


def xargs(case: Case) -> Finding:
    """``xargs``: the program behind it, with an argument that is not known."""
    words = _inner(case)
    if not words:
        return FINE if case.name != "parallel" else case.ask("runs what it reads")
    known = output_of(case.command.feeds)
    more = [Word(piece) for piece in known.split()] if known else [Word(UNKNOWN)]
    if base_name(words[0].text) in _UNIX_SHELLS and len(words) == 1:
        return case.verdicts.nested(known)
    replaces = [value.text for flag, value in case.given.values if flag in ("-I", "-i", "--replace")]
    marks = [mark for mark in (*replaces, "{}") if mark]
    if any(mark in word.text for mark in marks for word in words):
        text = more[0].text if len(more) == 1 else UNKNOWN
        words = tuple(replace(word, text=_replaced(word.text, marks, text)) for word in words)
        return case.verdicts.of_words(words, replace(case.command, feeds=()))
    if _removes_what_was_listed(case, words):
        return FINE
    return case.verdicts.of_words((*words, *more), replace(case.command, feeds=()))


def _replaced(text: str, marks: list[str], by: str) -> str:
    for mark in marks:
        text = text.replace(mark, by)
    return text


_HARMLESS_INNER = frozenset({"rm"})


def _removes_what_was_listed(case: Case, words: tuple[Word, ...]) -> bool:
    """``find . -name '*.pyc' | xargs rm``: what is removed is what a build makes again."""
    first = case.command.feeds[0] if case.command.feeds else None
    if base_name(words[0].text) not in _HARMLESS_INNER or first is None or base_name(first.program) != "find":
        return False
    texts = [word.text for word in first.words]
    names = [texts[i + 1] for i, text in enumerate(texts[:-1]) if text in ("-name", "-iname")]
    return bool(names) and all(case.table.is_rebuilt(name) for name in names)


def shell(case: Case) -> Finding:
    """``bash -c``, a script, or what it reads."""
    words = list(case.command.words[1:])
    for index, word in enumerate(words):
        text = word.text
        if re.fullmatch(r"-[a-zA-Z]*c[a-zA-Z]*", text) and not text.startswith("--"):
            script = next((each.text for each in words[index + 1 :] if not each.text.startswith("-")), None)
            return case.verdicts.nested(script)
    operands = case.given.operands
    reads_stdin = case.given.has("-s") or not operands or operands[0].text in ("-", "/dev/stdin", "/dev/fd/0")
    if not reads_stdin:
        return script_file(case, operands[0])
    if case.command.reads_text:
        return case.verdicts.nested(case.command.stdin)
    if case.command.feeds:
        return _runs_output(case)
    inputs = [redirect.target for redirect in case.command.redirects if not redirect.writes]
    if inputs:
        return script_file(case, inputs[0])
    return FINE if case.given.has("-n") else case.ask("opens a shell")


_DECODERS = frozenset(word_list("running_kinds.decoders"))


def _runs_output(case: Case) -> Finding:
    """A shell that reads what other programs print. Whoever hides a script by a code is asked about it in any case."""
    text = output_of(case.command.feeds)
    if text is None:
        return case.ask("runs what another program prints")
    hides = any(base_name(fed.program) in _DECODERS for fed in case.command.feeds)
    return worst([case.ask("runs what was hidden by a code") if hides else FINE, case.verdicts.nested(text)])


def script_file(case: Case, word: Word) -> Finding:
    path = word.text
    if UNKNOWN in path:
        known = re.sub(re.escape(UNKNOWN) + r"(?=/)", "", path)
        return FINE if UNKNOWN not in known and known.startswith("/") else case.ask("runs a file that is not known")
    if (made := case.verdicts.ran(path)) is not None:
        return made
    if path.startswith(("/tmp/", "/var/tmp/", "/dev/", "http:", "https:", "ftp:", "~/Downloads")):  # noqa: S108
        return case.ask("runs a file from elsewhere")
    return FINE


def sourcer(case: Case) -> Finding:
    """``source``: runs a file in this shell."""
    return script_file(case, case.given.operands[0]) if case.given.operands else FINE


_HOOKS = word_list("running_kinds.hooks")


def evaluator(case: Case) -> Finding:
    """``eval``: its words are a script."""
    words = case.command.words[1:]
    if case.name == "trap":
        words = words[:1]
        if not words or words[0].text in ("-", "-p", "-l", ""):
            return FINE
    hook = re.fullmatch(r"\"?(?:\$\(|`)([^()`;|&]*)(?:\)|`)\"?", words[0].raw.strip()) if len(words) == 1 else None
    if hook and like(hook[1].strip(), _HOOKS):
        return FINE
    hides = any(
        re.search(rf"\b(?:{'|'.join(sorted(_DECODERS))})\b", word.raw)
        for word in words
        if "$(" in word.raw or "`" in word.raw
    )
    found = case.ask("runs what was hidden by a code") if hides else FINE
    return worst([found, case.verdicts.nested(" ".join(word.text for word in words))]) if words else FINE


def remote(case: Case) -> Finding:
    """``ssh``: the command runs on another machine, where the same programs do the same."""
    found = case.by_table
    if not case.given.operands:
        return found
    words = case.command.words[1:]
    host = case.given.operands[0]
    rest = words[[id(word) for word in words].index(id(host)) + 1 :]
    if any(base_name(fed.program) not in ("echo", "printf") for fed in case.command.feeds):
        found = worst([found, case.ask("sends what it reads elsewhere")])
    inputs = [r for r in case.command.redirects if not r.writes and r.target.text != "/dev/null"]
    if inputs:
        found = worst([found, case.ask("sends a file elsewhere")])
    given = sorted_arguments(rest, case.entry.takes_value(case.name))
    if rest and (given.operands or not given.flags):
        text = " ".join(word.text for word in rest)
        found = worst(
            [found, case.verdicts.nested(text, remote=True) if UNKNOWN not in text else _of_known_parts(case, rest)]
        )
    return found


def _of_known_parts(case: Case, words: tuple[Word, ...]) -> Finding:
    return (
        case.verdicts.of_words(words, replace(case.command, feeds=(), redirects=()), remote=True)
        if len(words) > 1
        else case.ask("runs a text that is not known")
    )


def containers(case: Case) -> Finding:
    """``docker run`` and ``docker exec``: what runs inside may reach what is shared with it."""
    found = case.by_table
    texts = case.given.texts
    for verb in ("exec", "run"):
        if verb in texts[:3]:
            at = next(i for i, word in enumerate(case.command.words) if word.text == verb)
            inner = _after_operand(case.command.words[at + 1 :], case.entry.takes_value(case.name))
            if inner:
                found = worst([found, _quiet(case, inner)])
    return found


def _quiet(case: Case, inner: tuple[Word, ...]) -> Finding:
    """What runs in a container: only what is harmful wherever it runs counts, not a program that we don't know."""
    name = base_name(inner[0].text)
    if case.table.entry(name) is None:
        return FINE
    if name in _UNIX_SHELLS and len(inner) == 1:
        return FINE
    return case.verdicts.of_words(inner, case.command, remote=True)


def _after_operand(words: tuple[Word, ...], takes_value: frozenset[str]) -> tuple[Word, ...]:
    index = 0
    while index < len(words):
        text = words[index].text
        if not text.startswith("-"):
            return words[index + 1 :]
        long_switch = text in ("-t", "-a", "-i", "-p")
        index += 2 if text in takes_value and not long_switch else 1
    return ()


def cluster(case: Case) -> Finding:
    """``kubectl``: and what ``exec`` runs inside."""
    found = case.by_table
    words = case.command.words
    texts = [word.text for word in words]
    if "exec" in texts and "--" in texts:
        inner = words[texts.index("--") + 1 :]
        if inner:
            found = worst([found, _quiet(case, inner)])
    if found.level is Level.ALLOW and any(
        fed for fed in case.command.feeds if base_name(fed.program) in ("curl", "wget")
    ):
        found = case.ask("runs what was fetched")
    return found
