"""Programs that do harm by what they are aimed at: those that remove, move, change rights or stop things."""

from __future__ import annotations

import re
from dataclasses import replace

from stars_guard.parsing.program_table import Level
from stars_guard.parsing.shell_arguments import base_name, like
from stars_guard.parsing.shell_findings import FINE, Case, Finding, worst
from stars_guard.parsing.shell_words import UNKNOWN, Word
from stars_guard.parsing.word_lists import word_list

__all__ = ["archive", "everything", "files", "finder", "git", "killer", "permissions", "remover"]

_EVERYTHING = re.compile(
    r"(?:/|~|\.|\.\.|\*|/\*|~/\*?|\./?\*?|\.\./?\*?|\.\*|\.\[!.\]\*|/[^/]+/?\*?|[A-Za-z]:[\\/]?\*?|\*\*(?:/\*)?|\*\.\*)/?"
)
_SYSTEM = re.compile(
    r"/(?:bin|boot|dev|etc|home|lib\d*|opt|proc|root|run|sbin|srv|sys|usr|var|Users|System|Library|Applications)?(?:/\*|/)?$"
)
_TOP = re.compile(r"~[\w-]*/?\*?$|[A-Za-z]:[\\/]*\*?$")


def everything(text: str) -> bool:
    """Whether a target is all of a folder that people keep things in: the root, a home, the working folder."""
    return bool(_EVERYTHING.fullmatch(text)) and not text.startswith("/tmp")  # noqa: S108


def _is_the_machine(text: str) -> bool:
    clean = re.sub(r"/\.(?=/|$)", "", re.sub(r"/{2,}", "/", text))
    return bool(_SYSTEM.match(clean) or _TOP.match(clean))


def remover(case: Case) -> Finding:
    """``rm`` and the like, by how much they remove."""
    given = case.given
    if case.name in ("rmdir",):
        return FINE
    if case.name == "truncate":
        empties = any(value.text.strip("+-0KMG") in ("", "0") for value in given.of("-s", "--size"))
        shared = any(word.glob or _is_data(word.text) for word in given.operands)
        return case.ask("empties files") if empties or shared else FINE
    if case.name in ("shred", "srm", "wipe", "del", "erase", "rd"):
        disk = any(case.verdicts.written(word.text).level is Level.FORBID for word in given.operands)
        return case.finding(Level.FORBID, "writes to a disk") if disk else case.ask("removes files for good")
    deep = given.has("-r", "-R", "--recursive", "-d", "--dir") or case.name in ("rimraf", "trash", "trash-put")
    forced = given.has("-f", "--force", "--no-preserve-root")
    found = FINE
    for word in given.operands:
        found = worst([found, _removal(case, word, deep=deep, forced=forced)])
    return found


def _removal(case: Case, word: Word, *, deep: bool, forced: bool) -> Finding:
    text = word.text
    if UNKNOWN in text:
        tail = text.rpartition(UNKNOWN)[2]
        return (
            FINE
            if not deep and tail and case.table.is_rebuilt(tail.strip("/"))
            else case.ask("removes what is not known")
        )
    if deep and _is_the_machine(text):
        return case.finding(Level.FORBID, "removes everything")
    if case.table.is_rebuilt(text) and not everything(text):
        return FINE
    if deep or everything(text) or word.glob:
        return case.ask("removes a folder" if deep else "removes many files")
    if _is_data(text) or case.table.is_secret(text) or ".git" in text.split("/"):
        return case.ask("removes data")
    return FINE


def _is_data(text: str) -> bool:
    return like(text.lower(), ("*.db", "*.sqlite", "*.sqlite3", "*.sql", "*.dump", "*.mdb", "*.db-wal", "*.tfstate"))


_SEARCHES = word_list("target_kinds.searches")


def finder(case: Case) -> Finding:
    """``find``: what it removes is what its names let through."""
    texts = [word.text for word in case.command.words[1:]]
    if case.name in ("fd", "fdfind"):
        at = next((i for i, text in enumerate(texts) if text in ("-x", "-X", "--exec", "--exec-batch")), None)
        if at is None:
            return FINE
        words = case.command.words[at + 2 :]
        named = any("{" in word.text for word in words)
        return _exec(case, words if named else (*words, Word(UNKNOWN)), narrow=False)
    places = []
    for text in texts:
        if text.startswith(("-", "(", "!")):
            break
        places.append(text)
    names = [texts[i + 1] for i, text in enumerate(texts[:-1]) if text in _SEARCHES]
    negated = "!" in texts or "-not" in texts or ("-o" in texts and not names)
    narrow = (
        bool(names)
        and not negated
        and all(case.table.is_rebuilt(name.strip("*/") if "/" in name else name) for name in names)
    )
    narrow = narrow or (bool(places) and all(case.table.is_rebuilt(place) for place in places))
    found = FINE
    for index, text in enumerate(texts):
        if text == "-delete" and not narrow:
            level = Level.FORBID if any(_is_the_machine(p) and p != "." for p in places) and not names else Level.ASK
            found = worst([found, case.finding(level, "removes what it finds")])
        elif text in ("-exec", "-execdir", "-ok", "-okdir"):
            rest = case.command.words[index + 2 :]
            ends = [i for i, word in enumerate(rest) if word.text in (";", "+", "\\;")]
            found = worst([found, _exec(case, rest[: ends[0]] if ends else rest, narrow=narrow)])
        elif text in ("-fprint", "-fprintf", "-fls", "-fprint0") and index + 1 < len(texts):
            found = worst([found, case.verdicts.written(texts[index + 1])])
    return found


def _exec(case: Case, words: tuple[Word, ...], *, narrow: bool) -> Finding:
    if not words:
        return FINE
    if base_name(words[0].text) in ("rm", "rmdir", "unlink") and narrow:
        return FINE
    mine = tuple(replace(word, text=word.text.replace("{}", UNKNOWN)) for word in words)
    if base_name(words[0].text) in ("chmod", "chown", "chgrp"):
        mine = tuple(replace(word, text=word.text.replace(UNKNOWN, "found")) for word in mine)
    return case.verdicts.of_words(mine, replace(case.command, feeds=()))


_WORLD = re.compile(
    r"0?[0-7]?[0-7][0-7][2367]|[ugoa,]*[ao][ugo]*[+=][rx]*w[rx]*|\+?[rx]*w[rx]*$|[+=]w|777|666|0777|1777"
)
_SETS_ID = re.compile(r"[ugoa]*[+=][rwxt]*s|0?[2467][0-7]{3}$|[2467][0-7]{3}")


def permissions(case: Case) -> Finding:
    """``chmod`` and ``chown``: rights for everybody, for root, or over everything."""
    operands = list(case.given.operands)
    words = [word.text for word in case.command.words[1:]]
    deep = case.given.has("-R", "--recursive")
    if not operands:
        return FINE
    mode, *targets = [word.text for word in operands]
    wide = [text for text in targets if everything(text) or UNKNOWN in text]
    if deep and any(_is_the_machine(text) for text in targets):
        return case.finding(Level.FORBID, "changes the rights of everything")
    if case.name == "chmod":
        # a mode such as -x looks like an option
        modes = [mode, *(word for word in words if re.fullmatch(r"-[rwxXst]+", word))]
        if any(_WORLD.fullmatch(one) for one in modes):
            return case.ask("gives rights to everybody")
        if any(_SETS_ID.fullmatch(part) for one in modes for part in one.split(",")):
            return case.ask("lets others run as its owner")
        if any(like(text, ("*.ssh*", "/etc/*", "/usr/*")) for text in targets) and not re.fullmatch(
            r"0?[67]00|go-.*|u.*", mode
        ):
            return case.ask("changes the rights of the system")
    elif wide and deep and "root" in mode.split(":"):
        return case.ask("changes the owner of everything")
    if any(case.verdicts.written(text).level for text in targets if not text.startswith(("~", ".", "*"))):
        return case.ask("changes the rights of the system")
    return (
        case.ask("changes the rights of everything")
        if deep and wide and case.name == "chmod" and not re.fullmatch(r"[ug]+[+=][rwX]+", mode)
        else FINE
    )


def files(case: Case) -> Finding:
    """``cp``, ``mv``, ``dd``, ``rsync`` and the like: where from and where to."""
    texts = case.given.texts
    if case.name == "dd":
        out = next((text[3:] for text in texts if text.startswith("of=")), "")
        source = next((text[3:] for text in texts if text.startswith("if=")), "")
        secret = case.table.is_secret(source) or case.verdicts.written(source).level is Level.FORBID
        return worst([case.verdicts.written(out) if out else FINE, case.ask("reads a disk") if secret else FINE])
    if not texts:
        return FINE
    modes = [value.text for value in case.given.of("-m", "--mode")] if case.name in ("install", "mkdir") else []
    if any(_SETS_ID.fullmatch(part) for mode in modes for part in mode.split(",")):
        return case.ask("lets others run as its owner")
    if case.name == "install" and case.given.has("--strip-program"):
        return case.ask("runs a program")
    *sources, target = texts
    if case.name in ("tee", "touch", "mkdir", "sponge"):
        return worst([case.verdicts.written(text) for text in texts])
    if case.name in ("scp", "rsync", "sftp"):
        return _copies(case, sources, target)
    if case.name in ("cp", "mv", "ln", "install") and (
        "/dev/null" in sources or "/dev/zero" in sources or target == "/dev/null"
    ):
        return case.ask("loses a file")
    if case.name == "mv" and any(everything(text) or UNKNOWN in text for text in sources):
        wide = any(everything(text) for text in sources)
        return case.ask("moves everything") if wide else FINE
    if case.name == "ln" and any(_is_the_machine(text) for text in sources):
        return case.ask("links to the system")
    return case.verdicts.written(target)


_REMOTE = re.compile(r"(?:[\w.-]+@)?[\w.-]+::?(?!\\)|rsync://|sftp://|scp://")


def _is_far(text: str) -> bool:
    return text.startswith(("/", "~")) and not text.startswith("/tmp/")  # noqa: S108


def _copies(case: Case, sources: list[str], target: str) -> Finding:
    if case.given.has("-e", "--rsh") and any(
        not like(v.text, ("ssh", "ssh -p *", "ssh -i *")) for v in case.given.of("-e", "--rsh")
    ):
        return case.ask("runs a program")
    if case.given.has("--rsync-path") or (case.name == "scp" and case.given.has("-S")):
        return case.ask("runs a program")
    if any("ProxyCommand" in value.text for _, value in case.given.values):
        return case.ask("runs a program")
    if _REMOTE.match(target) and not re.match("[A-Za-z]:\\\\", target):
        if case.given.has("--delete", "--delete-after", "--remove-source-files", "--delete-before"):
            return case.ask("removes files elsewhere")
        wide = any(everything(text) or UNKNOWN in text or _is_far(text) for text in sources)
        secret = any(case.table.is_secret(text) or _is_data(text) for text in sources)
        return case.ask("sends files elsewhere") if wide or secret else FINE
    if case.given.has("--delete", "--delete-after", "--delete-before", "--remove-source-files") and (
        everything(target) or everything(sources[0] if sources else "")
    ):
        return case.ask("removes files")
    return FINE if any(_REMOTE.match(text) for text in sources) else case.verdicts.written(target)


def archive(case: Case) -> Finding:
    """``tar``: what it packs for a program that sends it, and where it unpacks."""
    found = case.by_table
    targets = case.given.of("-C", "--directory")
    extracts = case.given.has("-x", "--extract", "--get") or any(
        "x" in text and not text.startswith("/") for text in case.given.texts[:1] if re.fullmatch("[a-zA-Z]{1,6}", text)
    )
    if extracts and any(_is_the_machine(word.text) and word.text.startswith("/") for word in targets):
        found = worst([found, case.ask("unpacks over the system")])
    if case.given.has("-P", "--absolute-names") and extracts:
        found = worst([found, case.ask("unpacks over the system")])
    return found


_SERVICES = word_list("target_kinds.services")
_RUNTIMES = word_list("target_kinds.runtimes")


def killer(case: Case) -> Finding:
    """``kill``: everything, the first process, or all of a kind."""
    texts = [word.text for word in case.command.words[1:]]
    if case.name == "kill":
        if "-l" in texts or "-0" in texts:
            return FINE
        signal = texts[:1] if re.fullmatch(r"-[A-Za-z0-9]+", texts[0] if texts else "") else []
        targets = [text for text in texts[len(signal) :] if text not in ("-s", "-n", "--")]
        if "-1" in targets or "1" in targets or "0" in targets or (texts == ["-1"]):
            return case.ask("stops everything")
        return FINE
    if case.name == "killall5":
        return case.ask("stops everything")
    users = case.given.of("-u", "--user", "-U", "--euid", "-t", "-g")
    everywhere = case.name == "fuser" and case.given.has("-k", "-m")
    wide = any(like(word.text, _RUNTIMES) or like(word.text, _SERVICES) for word in case.given.operands)
    # a pattern of a letter or two is in nearly every command line
    short = case.name == "pkill" and any(len(re.sub(r"\W", "", word.text)) < 3 for word in case.given.operands)
    hard = case.given.has("-9", "-KILL", "-SIGKILL") or any(
        value.text in ("9", "KILL", "SIGKILL") for value in case.given.of("-s", "--signal")
    )
    return (
        case.ask("stops processes of others")
        if users or everywhere or wide or short or (hard and not case.given.has("-f"))
        else FINE
    )


_PLAIN_SETTINGS = word_list("target_kinds.settings")


def _settings(case: Case) -> list[str]:
    """The names of the settings that a call of git makes."""
    named = [value.text for value in case.given.of("-c", "--config", "--config-env") if "=" in value.text]
    texts = case.given.texts
    if texts[:1] == ["config"]:
        rest = [text for text in texts[1:] if text != "set"]
        if len(rest) > 1 and rest[0] not in ("get", "list", "unset", "get-all"):
            named.append(rest[0])
    return named


def _is_plain_setting(text: str) -> bool:
    return like(text.partition("=")[0].lower(), _PLAIN_SETTINGS)


def git(case: Case) -> Finding:
    """``git``: what is lost for good or rewritten for others."""
    found = case.by_table
    if found.level is not Level.ALLOW:
        return found
    given, texts = case.given, case.given.texts
    if not all(map(_is_plain_setting, _settings(case))):
        return case.ask("changes which code runs")
    verb, rest = (texts[0], texts[1:]) if texts else ("", [])
    shown = rest if given.has("--no-index") else [text.partition(":")[2] for text in rest]
    if any(map(case.table.is_secret, filter(None, shown))):
        return case.ask("reads secrets")
    if verb == "push":
        refs = [ref.rpartition(":")[2].lstrip("+") for ref in rest[1:]]
        forced = given.has("-f", "--force", "--force-with-lease", "--force-if-includes") or any(
            ref.startswith("+") for ref in rest[1:]
        )
        risky = not refs or any(
            like(ref, case.table.branches) or ref in ("HEAD", "@") or UNKNOWN in ref for ref in refs
        )
        unknown = bool(rest) and UNKNOWN in rest[0]
        return case.ask("rewrites what others have") if (forced and risky) or unknown else FINE
    if verb == "reset" and given.has("--hard", "--merge", "--keep"):
        remote = bool(rest) and re.match(r"(?:origin|upstream)/", rest[0])
        return FINE if remote else case.ask("loses work")
    if verb == "clean":
        return case.ask("removes files")
    if verb in ("checkout", "restore"):
        staged = verb == "restore" and given.has("--staged", "-S") and not given.has("--worktree", "-W")
        if not staged and any(everything(text) or text == ":/" for text in rest):
            return case.ask("loses work")
    fetches = verb in ("clone", "submodule", "fetch", "pull")
    if any(text.startswith(("ext::", "fd::", *(("file:", "-") if fetches else ()))) for text in rest):
        return case.ask("runs a program")
    return FINE
