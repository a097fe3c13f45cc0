"""Interpreters, and small languages on the command line: code on it, from another program, or in a file."""

from __future__ import annotations

import re

from stars_guard.parsing._running_kinds import script_file
from stars_guard.parsing._shell_output import output_of
from stars_guard.parsing.code_calls import risks_in, strings_in
from stars_guard.parsing.shell_arguments import like
from stars_guard.parsing.shell_findings import FINE, Case, Finding, worst
from stars_guard.parsing.shell_words import UNKNOWN, Word
from stars_guard.parsing.word_lists import word_list

__all__ = ["code", "commanded", "interpreter", "renamer"]

_LANGUAGES = {
    **dict.fromkeys(("python", "pypy", "ipython", "bpython"), "python"),
    **dict.fromkeys(("node", "nodejs", "deno", "bun", "tsx", "ts-node"), "js"),
}
_CODE_FLAGS = {"python": ("-c",), "js": ("-e", "-p", "--eval", "--print", "-pe")}
_MODULES_OF_PACKAGES = frozenset(word_list("code_kinds.modules_of_packages"))


def interpreter(case: Case) -> Finding:
    """Code on the command line, from another program, or in a file."""
    language = next((value for key, value in _LANGUAGES.items() if case.name.startswith(key)), "other")
    flags = _CODE_FLAGS.get(language, ("-e", "-E", "-r", "-c", "-B", "-R", "--eval", "-eval", "-batch"))
    codes = case.given.of(*flags)
    if case.name == "php" and case.given.has("-S"):
        return _serves(case, [value.text for value in case.given.of("-S")] or case.given.texts)
    if case.name == "ruby" and case.given.has("-run", "-rsocket", "-ropen-uri", "-rnet/http"):
        return case.ask("talks to the network")
    if codes:
        return worst([_code(case, word.text, language) for word in codes])
    if language == "js" and case.given.texts[:1] in (["eval"], ["-"]):
        return _code(case, " ".join(case.given.texts[1:]) or case.command.stdin or UNKNOWN, language)
    if (module := case.given.of("-m", "-mhttp.server")) and language == "python":
        return _module(case, module[0].text)
    if case.name in ("deno", "bun", "dotnet") and case.given.texts[:1] not in ([], ["run"]):
        return (
            FINE
            if not like(" ".join(case.given.texts), ("*http*", "*publish*", "*push*"))
            else case.ask("runs code from elsewhere")
        )
    operands = [word for word in case.given.operands if word.text != "run"]
    if operands and operands[0].text not in ("-", "/dev/stdin"):
        return _program_file(case, operands)
    if case.command.reads_text:
        text = case.command.stdin
        return case.ask("runs a text that is not known") if text is None else _code(case, text, language)
    if case.command.feeds:
        text = output_of(case.command.feeds)
        return case.ask("runs what another program prints") if text is None else _code(case, text, language)
    inputs = [redirect.target for redirect in case.command.redirects if not redirect.writes]
    return script_file(case, inputs[0]) if inputs else FINE


def _program_file(case: Case, operands: list[Word]) -> Finding:
    arguments = [word.text for word in operands[1:]]
    name = operands[0].text.rpartition("/")[2]
    if name in ("manage.py", "artisan") and like(
        " ".join(arguments),
        (
            "flush*",
            "reset_db*",
            "sqlflush*",
            "migrate:fresh*",
            "migrate:reset*",
            "db:wipe*",
            "migrate * zero*",
            "*delete_*",
            "dbshell*",
            "drop_*",
        ),
    ):
        return case.ask("loses data")
    if name in ("manage.py",) and arguments[:1] == ["runserver"]:
        return _serves(case, arguments[1:]) if arguments[1:] and "0.0.0.0" in arguments[1] else FINE  # noqa: S104
    if name in ("manage.py",) and arguments[:1] == ["shell"]:
        codes = case.given.of("-c", "--command")
        return worst([_code(case, word.text, "python") for word in codes]) if codes else case.ask("opens a shell")
    return script_file(case, operands[0])


def _module(case: Case, module: str) -> Finding:
    words = case.command.words
    index = next((i for i, word in enumerate(words) if word.text == module or word.text == f"-m{module}"), len(words))
    rest = words[index + 1 :]
    if module in ("timeit", "trace", "cProfile", "profile") and rest:
        return worst([_code(case, word.text, "python") for word in rest])
    if module in ("http.server", "SimpleHTTPServer"):
        return _serves(case, [word.text for word in rest])
    if module == "pip" or module in _MODULES_OF_PACKAGES:
        return case.verdicts.of_words((Word(module), *rest), case.command)
    more = module in ("smtpd", "code", "zipapp", "idlelib", "pyftpdlib", "twine", "trace", "runpy")
    return case.ask("runs a module that does more") if more else FINE


def _serves(case: Case, texts: list[str]) -> Finding:
    """A server of files is for this machine alone."""
    local = any(like(text, ("127.*", "localhost*", "::1", "[[]::1]*")) for text in texts)
    return FINE if local else case.ask("serves files to the network")


def _code(case: Case, code: str, language: str) -> Finding:
    if UNKNOWN in code:
        harmless = not re.search(r"system|exec|eval|spawn|unlink|rmtree|remove|popen", code)
        return FINE if harmless and code.strip(UNKNOWN) and len(code) > 20 else case.ask("runs code that is not known")
    if any(case.table.is_secret(text) for text in strings_in(code) if " " not in text):
        return case.ask("reads secrets")
    why = risks_in(code, language)
    return case.ask(why) if why else FINE


_SHELLS_OUT = re.compile(r"!|\b(?:syscmd|esyscmd|system|shell|exec|open|python|put|get|rm)\b")


def commanded(case: Case) -> Finding:
    """Editors and calculators: what they read may have their command for running a program."""
    if case.command.reads_text:
        text = case.command.stdin
    else:
        text = output_of(case.command.feeds) if case.command.feeds else ""
    if case.name in ("m4",) and text and re.search(r"\b(?:e?syscmd|mkstemp|maketemp|undivert|s?include)\b", text):
        return case.ask("runs a program")
    if text is None:
        return worst(
            [case.by_table, FINE if case.name in ("bc", "dc") else case.ask("follows a text that is not known")]
        )
    return worst([case.by_table, case.ask("runs a program") if _SHELLS_OUT.search(text) else FINE])


_SED_RUNS = re.compile(
    r"(?:^|[;{}\n])\s*(?:[\d$,!~+\s]|/[^/]*/I?|\\(.)[^\n]*?\1)*!?\s*e(?:\s|$|;)"
    r"|(?<![A-Za-z])s(?P<by>[^\w\s\\])(?:\\.|(?!(?P=by)).)*(?P=by)(?:\\.|(?!(?P=by)).)*(?P=by)[gpiImM0-9]*e",
    re.DOTALL,
)
_PLAIN_SUBSTITUTION = re.compile(
    r"(?:s|y|tr)([/|,#!:])(?:\\.|(?!\1)[^$@&`{}()]|[()$](?=\1|[\w.?*+|)]))*\1(?:\\.|(?!\1)[^@`{}])*\1[gi]*"
)


def renamer(case: Case) -> Finding:
    """``rename``: its first operand is Perl, except in the form of util-linux, which takes two names."""
    first = case.given.operands[0].text if case.given.operands else ""
    is_code = bool(re.search(r"[/;(){}$`@]", first)) or case.given.has("-e", "--expr")
    return case.ask("runs code") if is_code and not _PLAIN_SUBSTITUTION.fullmatch(first) else FINE


_SHOWN = re.compile(r"\bin\s+ENVIRON\b|ENVIRON\s*\[(?!\s*\"(?:HOME|PATH|USER|PWD|LANG)\")")
_AWK_TEXT = re.compile(r'"(?:\\.|[^"\\])*"')
_AWK_PIPES = re.compile(r"\bprintf?\b[^;}\n|]*\|(?!\|)")
_AWK_RUNS = re.compile(
    r"system\s*\(|\|\s*getline|\|&|/inet/|@\s*(?:load|include)"
    r"|\bprintf?\b[^;}()\n]*>>?\s*(?:\"[/~]|[A-Za-z(])"
)


def code(case: Case) -> Finding:
    """``awk`` and ``sed``: their programs can run others and write files."""
    if case.name in ("sed", "gsed"):
        scripts = case.given.of("-e", "--expression") or list(case.given.operands[:1])
        if any(_SED_RUNS.search(word.text) for word in scripts):
            return case.ask("runs a program")
        writes = any(re.search(r"(?:^|[;}/|,\d$gpiI])\s*[wW]\s+[/~]", word.text) for word in scripts)
        in_place = case.given.has("-i", "--in-place") and any(
            case.verdicts.written(word.text).level for word in case.given.operands[1:]
        )
        return case.ask("writes to a file of the system") if writes or in_place else FINE
    programs = list(case.given.operands[:1]) if not case.given.of("-f") else []
    pipes = any(_AWK_PIPES.search(_AWK_TEXT.sub('""', word.text)) for word in programs)
    if any(_SHOWN.search(word.text) for word in programs):
        return case.ask("shows secrets")
    if pipes or any(_AWK_RUNS.search(word.text) for word in programs):
        return case.ask("runs a program")
    return FINE
