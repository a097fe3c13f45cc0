"""What a shell command would do, as a level: let it run, ask a person, or never.

The commands of a script are looked at one by one with what the script did before: which files it fetched or wrote and
now runs, and what it feeds to whom. `program_kinds` knows the programs that take other programs, code or targets.
"""

from __future__ import annotations

import re
from dataclasses import replace

from stars_guard.parsing._running_kinds import script_file
from stars_guard.parsing._secret_kinds import few_variables
from stars_guard.parsing._shell_output import output_of
from stars_guard.parsing.known_options import known_options
from stars_guard.parsing.program_kinds import KINDS
from stars_guard.parsing.program_table import Level, options_of, program_table
from stars_guard.parsing.shell_arguments import base_name, like, sorted_arguments
from stars_guard.parsing.shell_commands import Command, Redirect, Scope, Script, Unparsable
from stars_guard.parsing.shell_findings import FINE, Case, Finding, Settings, worst
from stars_guard.parsing.shell_script import read_script
from stars_guard.parsing.shell_words import UNKNOWN, Word
from stars_guard.parsing.word_lists import word_list

__all__ = ["Verdicts", "read_tables"]

_DEEPEST = 6
_DEVICES = word_list("shell_verdict.devices")
_NETWORK = ("/dev/tcp/*", "/dev/udp/*")
_STARTUP = word_list("shell_verdict.startup")
_SAFE_DEVICES = word_list("shell_verdict.safe_devices")
_DATA = word_list("shell_verdict.data")


def read_tables() -> None:
    """Read the files that commands are judged by, once. Do it in a thread where nothing may block."""
    program_table()
    known_options("")


class Verdicts:
    """Looks at the commands of a text in order.

    Attributes:
        remote: whether the commands run on another machine.
        seen: every command that was looked at, those inside of others too, and whether it runs elsewhere.
    """

    def __init__(self, settings: Settings, *, depth: int = 0, remote: bool = False) -> None:
        self.settings = settings
        self.remote = remote
        self.seen: list[tuple[Command, bool]] = []
        self._depth = depth
        # files that a command of the text has fetched or put together, with their content where it is known
        self._fetched: dict[str, str | None] = {}
        self._scope = Scope()

    def of_text(self, text: str) -> Finding:
        """The worst that a script does. One that nobody can read is asked about."""
        if self._depth > _DEEPEST:
            return Finding(Level.ASK, why="nested too deeply")
        try:
            script = read_script(text, self._scope)
        except Unparsable as exc:
            return Finding(Level.ASK, why=str(exc))
        return self._of_script(script)

    def nested(self, text: str | None, *, remote: bool = False) -> Finding:
        """The worst that a script inside of a command does, such as that of ``sh -c``."""
        if text is None or UNKNOWN in text:
            return Finding(Level.ASK, why="runs a text that is not known")
        return self._inside(remote=remote).of_text(text)

    def of_words(self, words: tuple[Word, ...], like_command: Command, *, remote: bool = False) -> Finding:
        """What a command does whose program is an argument of another, such as that of ``sudo``."""
        if not words:
            return FINE
        if self._depth > _DEEPEST:
            return Finding(Level.ASK, why="nested too deeply")
        return self._inside(remote=remote).of_command(replace(like_command, words=words, sets=(), redirects=()))

    def _inside(self, *, remote: bool) -> Verdicts:
        """For what a command runs: it knows what was before."""
        inner = Verdicts(self.settings, depth=self._depth + 1, remote=remote or self.remote)
        inner._fetched, inner._scope, inner.seen = self._fetched, self._scope, self.seen
        return inner

    def _of_script(self, script: Script) -> Finding:
        self._scope = script.scope
        found = FINE
        few = few_variables(script.commands)
        for command in script.commands:
            found = worst([found, self.of_command(command) if command not in few else FINE])
        return found

    def of_command(self, command: Command) -> Finding:
        """What one command does."""
        self.seen.append((command, self.remote))
        found = worst(
            [
                self._sets(command),
                _evaluates(command),
                *map(self._redirect, command.redirects),
                self._truncates(command),
            ]
        )
        if command.words:
            found = worst([found, self._program(command)])
        self._remember(command)
        return found

    def _program(self, command: Command) -> Finding:
        if command.calls_itself:
            return Finding(Level.FORBID, why="calls itself without end")
        program = command.program
        name = base_name(program)
        said = self._said(command, name)
        if said is not None:
            return said
        if program in self._scope.functions:
            return FINE  # what it runs is in the list of commands
        if program in self._scope.aliases:
            return self.nested(" ".join([self._scope.aliases[program], *(word.raw for word in command.words[1:])]))
        entry = self.settings.table.entry(name)
        if entry is None:
            return self._unknown(program)
        table = self.settings.table
        runs, loads = options_of(name, table.runs), options_of(name, table.loads)
        takes_value = entry.takes_value(name) | runs | loads
        options = known_options(name)
        more = options.values if options is not None else frozenset()
        given = sorted_arguments(command.words[1:], takes_value | more)
        if given.has("--help", "--version") and len(command.words) == 2:
            return FINE
        case = Case(name=name, entry=entry, given=given, command=command, verdicts=self)
        kind = KINDS.get(entry.kind)
        found = kind(case) if kind else case.by_table
        inner = [self._held(word.text) for word in given.of(*runs)]
        inner += [script_file(case, word) for word in given.of(*loads)]
        if options is not None and not options.cover(command.words[1:], takes_value):
            inner.append(case.ask("has an option that is not known to be harmless"))
        return worst([found, self._reads_secrets(case), *inner])

    def _said(self, command: Command, name: str) -> Finding | None:
        """What the policy's own lists say."""
        line = " ".join([name, *(word.text for word in command.words[1:])])
        for level, globs in ((Level.FORBID, self.settings.forbid), (Level.ASK, self.settings.ask)):
            if like(line, globs):
                return Finding(level, why="is in the policy's list")
        if self.settings.only is not None and not like(line, self.settings.only):
            return Finding(Level.FORBID, why="is not in the policy's list")
        return FINE if UNKNOWN not in line and like(line, self.settings.allow) else None

    def _unknown(self, program: str) -> Finding:
        if UNKNOWN in program or not program:
            return Finding(Level.ASK, why="a program that is not known before it runs")
        if (made := self.ran(program)) is not None:
            return made
        temporary = program.startswith(("/tmp/", "/var/tmp/", "/dev/shm/", "~"))  # noqa: S108
        near = "/" in program and (not program.startswith("/") or self._is_own(program))
        if near and not temporary and ".." not in program.split("/") and like(program, self.settings.scripts):
            return FINE
        return Finding(self.settings.unknown, why="an unknown program")

    def _is_own(self, program: str) -> bool:
        return like(program, [glob for glob in self.settings.scripts if glob.startswith("/")])

    def ran(self, path: str) -> Finding | None:
        """What running a file means that this text has made; None where it has not."""
        name = path.removeprefix("./")
        if name not in self._fetched:
            return None
        content = self._fetched[name]
        return Finding(Level.ASK, why="runs what was fetched") if content is None else self.nested(content)

    def _reads_secrets(self, case: Case) -> Finding:
        if self.remote or case.name in _NAMES_ONLY:
            return FINE
        files = [*case.given.operands, *(value for flag, value in case.given.values if flag not in _TEXTS)]
        if case.name in ("cp", "mv", "install", "scp", "rsync") and len(case.given.operands) > 1:
            files.remove(case.given.operands[-1])
        if case.name in _PATTERN_FIRST and not case.given.has("-e", "-f", "--regexp", "--file"):
            files = [word for word in files if word is not (case.given.operands or (None,))[0]]
        files += [redirect.target for redirect in case.command.redirects if not redirect.writes]
        table = self.settings.table
        if any(
            table.is_secret(word.text.lstrip("@")) or (word.glob and table.may_be_secret(word.text)) for word in files
        ):
            return case.ask("reads secrets")
        return FINE

    def _sets(self, command: Command) -> Finding:
        sets = list(command.sets)
        entry = self.settings.table.entry(base_name(command.program))
        if command.program in _DECLARES or (entry is not None and entry.kind in _PASSES_ON):
            pairs = (word.text.partition("=") for word in command.words[1:])
            sets += [(name, Word(value)) for name, equals, value in pairs if equals]
        if any(like(name, self.settings.table.loaders) for name, _ in sets):
            return Finding(Level.ASK, why="changes which code runs")
        held = [value.text.lstrip("|-") for name, value in sets if like(name, self.settings.table.commands)]
        if held and (found := worst(map(self._held, held))).level:
            return found
        path = next((value.text for name, value in sets if name == "PATH"), None)
        loose = (".", "", "./", "/tmp")  # noqa: S108
        if path is not None and any(part in loose or part.startswith(("/tmp/", "./")) for part in path.split(":")):  # noqa: S108
            return Finding(Level.ASK, why="changes which code runs")
        return FINE

    def _held(self, text: str) -> Finding:
        """What a command does that a variable or an option holds."""
        return self.nested(text) if text else FINE

    def _redirect(self, redirect: Redirect) -> Finding:
        target = redirect.target.text
        if like(target, _NETWORK):
            return Finding(Level.FORBID, why="opens a connection")
        if not redirect.writes or like(target, _SAFE_DEVICES):
            secret = not redirect.writes and not self.remote and self.settings.table.is_secret(target)
            return Finding(Level.ASK, why="reads secrets") if secret else FINE
        return self.written(target)

    def written(self, target: str) -> Finding:
        """What writing to a file means, by its name."""
        if like(target.lower(), _DEVICES):
            return Finding(Level.FORBID, why="writes to a disk")
        if UNKNOWN in target and not target.rpartition("/")[2].strip(UNKNOWN):
            return Finding(Level.ASK, why="writes to a file that is not known")
        if like(target, _STARTUP) or (target.startswith("/dev/") and not like(target, _SAFE_DEVICES)):
            return Finding(Level.ASK, why="writes to a file of the system")
        return FINE

    def _truncates(self, command: Command) -> Finding:
        """A redirection without a program, or of nothing, empties the file."""
        emptied = [
            r for r in command.redirects if r.writes and not r.appends and not like(r.target.text, _SAFE_DEVICES)
        ]
        if not emptied or (command.reads_text and not command.words):
            return FINE
        words = [word.text for word in command.words]
        nothing = not words or words in (
            [":"],
            ["true"],
            ["cat", "/dev/null"],
            ["echo", "-n"],
            ["printf", ""],
            ["echo", "-n", ""],
        )
        data = any(like(r.target.text, _DATA) for r in emptied) and words[:1] in (["echo"], ["printf"])
        return Finding(Level.ASK, why="empties a file") if nothing or data else FINE

    def _remember(self, command: Command) -> None:
        """Files that this command makes of what is not in the workspace."""
        for redirect in command.redirects:
            if redirect.writes and command.words:
                self.made(redirect.target.text, output_of([*command.feeds, replace(command, redirects=())]))
        if command.program == "tee" and command.feeds:
            printed = output_of(command.feeds)
            if printed is not None or any(base_name(fed.program) in _MAKERS for fed in command.feeds):
                for word in command.words[1:]:
                    self.made(word.text, printed)
        if command.program in ("cp", "mv", "ln", "install") and len(command.words) > 2:
            *_, source, target = (word.text.removeprefix("./") for word in command.words)
            if source in self._fetched:
                self.made(target, self._fetched[source])

    def made(self, path: str, content: str | None) -> None:
        """Remember a file that the text makes, and its content where that is known."""
        self._fetched[path.removeprefix("./")] = content


_SUBSCRIPT = re.compile(r"\[[^\]]*(?:\$\(|`)|^\s*(?:\$\(|`)")


def _evaluates(command: Command) -> Finding:
    """A name of a variable may have an index, and a shell runs the commands in it though they were quoted."""
    texts = [word.text for _, word in command.sets]
    if command.program in _NAMES:
        texts += [word.text for word in command.words[1:]]
    if command.program in ("read", "mapfile", "readarray"):
        texts.append(command.stdin or "")
    return Finding(Level.ASK, why="evaluates a text") if any(map(_SUBSCRIPT.search, texts)) else FINE


_NAMES = frozenset(word_list("shell_verdict.names"))
_DECLARES = ("export", "declare", "typeset", "readonly", "local")
_PASSES_ON = ("environment", "elevated", "wrapper")
_MAKERS = frozenset(word_list("shell_verdict.makers"))
_NAMES_ONLY = frozenset(word_list("shell_verdict.names_only"))
_PATTERN_FIRST = frozenset(word_list("shell_verdict.pattern_first"))
_TEXTS = frozenset(word_list("shell_verdict.texts"))
