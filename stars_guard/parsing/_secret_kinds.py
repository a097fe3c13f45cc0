"""Programs that print what the environment holds, in which there are keys and passwords."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stars_guard.parsing.shell_commands import Command
from stars_guard.parsing.shell_findings import FINE, Case, Finding, worst

__all__ = ["SECRET_NAME", "few_variables", "filter_program", "printed", "shown_variables"]

SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|API_?KEY|ACCESS_?KEY|PRIVATE|CREDENTIAL|AUTH(?!OR)|(?:^|_)PWD(?=.)|DSN|DATABASE_URL|_KEY(?:$|_)",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"\$\{?[!#]?(\w+)")


def printed(case: Case) -> Finding:
    """``echo``: a variable whose name says that it is a secret."""
    # -n and -z tell only whether it is there
    names = [name for word in case.command.words[1:] for name in _VARIABLE.findall(_without_quoted(word.raw))]
    shows = any(SECRET_NAME.search(name) and not name.isdigit() for name in names)
    return case.ask("shows secrets") if shows else FINE


def _without_quoted(raw: str) -> str:
    """The word without what its shell takes literally, and without ``${x:+yes}`` and ``${#x}``, which show nothing."""
    raw = re.sub(r"\$\{(?:\w+:?\+|#)[^}]*\}", "", raw)
    return "" if raw.startswith("'") and raw.endswith("'") and raw.count("'") == 2 else re.sub(r"\\\$", "", raw)


def shown_variables(case: Case) -> Finding:
    """``export`` and ``set`` without names: they print every variable."""
    has_names = bool(case.given.operands or case.command.sets) or (case.name == "set" and len(case.command.words) > 1)
    return worst([case.by_table, FINE if has_names or case.given.has("-f", "-F") else case.ask("shows secrets")])


_SHOW_ALL = (["env"], ["printenv"], ["set"], ["export"], ["export", "-p"], ["declare"], ["declare", "-p"])
_NARROW = re.compile(
    r"\^?(?:PATH|HOME|USER|LANG|LC_\w*|SHELL|BASH\w*|NODE(?:_ENV)?|PYTHON(?:PATH|HOME)?|VIRTUAL_ENV|JAVA(?:_HOME)?|GO(?:PATH|ROOT)?|"
    r"TERM|EDITOR|DISPLAY|XDG\w*|PWD|TZ|CONDA\w*|CUDA\w*|LD_LIBRARY_PATH|HOSTNAME|LOGNAME|TMPDIR|PORT|DEBUG|ENV)=?",
    re.IGNORECASE,
)


def few_variables(commands: Sequence[Command]) -> list[Command]:
    """The commands that print every variable to one which lets through only those of a harmless name."""
    found = []
    for command in commands:
        words = [word.text for word in command.words]
        feed = command.feeds[-1] if command.feeds else None
        is_narrow = words[:1] in (["grep"], ["egrep"], ["rg"]) and _NARROW.fullmatch(words[-1])
        plain = all(word in ("-i", "-E", "-w", "-q") for word in words[1:-1])
        if feed is not None and is_narrow and plain and [word.text for word in feed.words] in _SHOW_ALL:
            found.append(feed)
    return found


_ENVIRONMENT = re.compile(
    r"(?<![.\w\"'])(?:env|\$ENV|ENV|strenv|envsubst|get_env)\b(?:\s*\.\s*(\w+)|\s*\(\s*(\w+)|\[\s*\"(\w+))?"
)
_LOADS = re.compile(r"\b(?:load|load_str|load_xml|load_props|load_base64)\s*\(|\binput_filename\b.*\bsystem\b")


def filter_program(case: Case) -> Finding:
    """``jq`` and ``yq``: a program may read the whole environment, and files."""
    for word in case.given.operands[:1]:
        for match in _ENVIRONMENT.finditer(word.text):
            name = match[1] or match[2] or match[3]
            if name is None or SECRET_NAME.search(name):
                return case.ask("shows secrets")
        if _LOADS.search(word.text):
            return case.ask("reads other files")
    return case.by_table
