"""A shell script as the simple commands that it would run, each with the words, redirections and input it would have.

Every command is found, wherever it stands: in pipelines, lists, subshells, loops, substitutions (in strings, arithmetic
and here-documents too) and functions. Branches count as taken. A variable that several branches set is unknown.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from tree_sitter import Node

from stars_guard.parsing._grammar import BRANCHES, LOOPS, STATEMENTS, parsed
from stars_guard.parsing._hidden_commands import hidden_commands, scripts_between_backticks
from stars_guard.parsing._shell_output import output_of
from stars_guard.parsing.shell_commands import Command, Redirect, Scope, Script, Unparsable
from stars_guard.parsing.shell_words import UNKNOWN, Word, Words, holds_reserved, text_of

__all__ = ["read_script"]

_DEEPEST, _LONGEST, _MOST_COMMANDS = 40, 50_000, 2_000


def read_script(text: str, scope: Scope | None = None) -> Script:
    """All commands of a script, after what is set in ``scope``, whose variables stay; by default in a new shell.

    Raises:
        Unparsable: it is no Bash, or too long, too deep, or holds characters that could be taken for others.
    """
    if scope is not None and scope != Scope():
        return _read(text, scope.copy())
    script = _in_a_new_shell(text)  # several judges ask about the same command
    return Script(script.commands, script.scope.apart())


def _read(text: str, scope: Scope) -> Script:
    if len(text) > _LONGEST or holds_reserved(text) or "\0" in text:
        raise Unparsable("too long, or with characters that no command has")
    tree = parsed(text)
    if tree.root_node.has_error:
        raise Unparsable("not a script that can be parsed")
    reader = _Reader(scope)
    try:
        reader.walk(tree.root_node, 0)
        reader.walk_uncalled()
        for hidden in hidden_commands(tree.root_node):
            reader.walk(hidden, 0)
    except RecursionError:
        raise Unparsable("nested too deeply") from None
    return Script(tuple(reader.found), reader.scope)


_in_a_new_shell = lru_cache(32)(lambda text: _read(text, Scope()))


class _Reader:
    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.found: list[Command] = []
        self._feeds: tuple[Command, ...] = ()
        self._piped_on = False
        self._calling: list[tuple[str, int]] = []
        self._called: set[str] = set()
        self._defined: dict[str, Node] = {}

    # --- statements

    def walk(self, node: Node, depth: int) -> None:
        if depth > _DEEPEST or len(self.found) > _MOST_COMMANDS:
            raise Unparsable("too long or nested too deeply")
        match node.type:
            case "comment":
                pass
            case _ if node.type in STATEMENTS:
                self._command(node, depth, ())
            case "variable_assignment" | "variable_assignments":
                self._assignments(node, depth)
            case "redirected_statement":
                self._redirected(node, depth)
            case "pipeline":
                self._pipeline(node, depth)
            case "subshell" | "command_substitution" | "process_substitution":
                self._apart(node, depth)
            case "function_definition":
                self._define(node)
            case "list":
                self._list(node, depth)
            case _ if node.type in BRANCHES:
                before = dict(self.scope.variables)
                self._children(node, depth)
                self._forget_changes(before)
            case "for_statement":
                self._for(node, depth)
            case _ if node.type in LOOPS:
                self._children(node, depth)
                self._children(node, depth)
            case _:
                self._children(node, depth)

    def walk_uncalled(self) -> None:
        """Functions that nobody called here: somebody may, later."""
        for name, body in list(self._defined.items()):
            if name not in self._called:
                self._call(name, body, [], 0)

    def _children(self, node: Node, depth: int) -> None:
        for child in node.named_children:
            self.walk(child, depth + 1)

    def _apart(self, node: Node, depth: int) -> None:
        """What runs in a shell of its own: what it sets is gone afterwards."""
        outer, self.scope = self.scope, self.scope.copy()
        feeds, self._feeds = self._feeds, self._feeds if node.type == "subshell" else ()
        piped, self._piped_on = self._piped_on, self._piped_on or node.type != "subshell"
        self._children(node, depth)
        self.scope, self._feeds, self._piped_on = outer, feeds, piped

    def _pipeline(self, node: Node, depth: int) -> None:
        parts = [child for child in node.named_children if child.type != "comment"]
        feeds, piped, before = self._feeds, self._piped_on, len(self.found)
        for index, part in enumerate(parts):
            self._piped_on = piped or index < len(parts) - 1
            self.walk(part, depth + 1)
            self._feeds = (*feeds, *self.found[before:])
        self._feeds, self._piped_on = feeds, piped

    def _list(self, node: Node, depth: int) -> None:
        first, *rest = node.named_children
        self.walk(first, depth + 1)
        before = dict(self.scope.variables)
        for child in rest:
            self.walk(child, depth + 1)
        chained = node.parent is not None and node.parent.type == "list"
        if not chained or any(child.type == "||" for child in node.children):
            self._forget_changes(before)

    def _for(self, node: Node, depth: int) -> None:
        name = text_of(node.children[1])
        values = [
            word
            for child in node.named_children[1:]
            if child.type not in ("do_group", "compound_statement")
            for word in self._expanded(child, depth)
        ]
        body = [child for child in node.named_children if child.type in ("do_group", "compound_statement")]
        for value in [word.text for word in values][:8] if 0 < len(values) <= 8 else [UNKNOWN]:
            self.scope.variables[name] = value
            for child in body:
                self.walk(child, depth + 1)
        self.scope.variables[name] = UNKNOWN

    def _forget_changes(self, before: dict[str, str]) -> None:
        now = self.scope.variables
        for name in now:
            if before.get(name) != now[name]:
                now[name] = UNKNOWN

    # --- commands

    def _redirected(self, node: Node, depth: int) -> None:
        redirects: list[Redirect] = []
        text: str | None = None
        reads_text = False
        body: Node | None = None
        later: list[Node] = []
        for child in node.named_children:
            if child.type == "file_redirect":
                redirects += self._redirect(child, depth)
            elif child.type in ("heredoc_redirect", "herestring_redirect"):
                reads_text = True
                text, more = self._text(child, depth)
                redirects += [
                    each
                    for one in child.named_children
                    if one.type == "file_redirect"
                    for each in self._redirect(one, depth)
                ]
                later += more
            else:
                body = child
        start = len(self.found)
        piped, self._piped_on = self._piped_on, self._piped_on or bool(later)
        if body is None:
            self._emit(Command(redirects=tuple(redirects), folder=self.scope.folder))
        elif body.type in STATEMENTS:
            self._command(body, depth, tuple(redirects), stdin=text, reads_text=reads_text)
        else:
            self.walk(body, depth + 1)
            self._redirect_all(start, body, Command(redirects=tuple(redirects), stdin=text, reads_text=reads_text))
        self._piped_on = piped
        if later:  # a pipeline that stands on the line of a here-document
            feeds, self._feeds = self._feeds, (*self._feeds, *self.found[start:])
            for child in later:
                self.walk(child, depth + 1)
            self._feeds = feeds

    def _redirect_all(self, start: int, body: Node, given: Command) -> None:
        """Give the redirections behind a list to its last command, and those behind a loop or a group to all."""
        chained = body.type in ("list", "pipeline", "negated_command")
        for index in range(len(self.found) - 1 if chained else start, len(self.found)):
            one = self.found[index]
            redirects = (*one.redirects, *given.redirects) if chained else one.redirects
            reads = one.reads_text or given.reads_text
            self.found[index] = replace(
                one, redirects=redirects, stdin=one.stdin if one.reads_text else given.stdin, reads_text=reads
            )
        if not chained:
            self._emit(Command(redirects=given.redirects, folder=self.scope.folder, reads_text=True))

    def _text(self, node: Node, depth: int) -> tuple[str | None, list[Node]]:
        """What a here-document or a here-string gives, and the statements that follow on its line."""
        later: list[Node] = []
        text: str | None = None
        quoted = any(c.type == "heredoc_start" and text_of(c)[:1] in "'\"\\" for c in node.named_children)
        for child in node.named_children:
            if child.type in ("heredoc_start", "heredoc_end", "file_redirect", "file_descriptor"):
                continue
            if child.type == "heredoc_body":
                self._substitutions(child, depth)
                word = Word(text_of(child)) if quoted else self._words().one(child)
                text = word.text if word.known else None
            elif child.type in ("pipeline", "command", "list", "redirected_statement", "subshell"):
                later.append(child)
            elif node.type == "herestring_redirect":
                self._substitutions(child, depth)
                word = self._words().one(child)
                text = word.text if word.known else None
        if node.type == "heredoc_redirect" and not quoted and "`" in text_of(node):
            self._backticks(text_of(node), depth)
            text = None
        if any(child.type == "word" and text_of(child)[:1] == "\n" for child in node.named_children):
            # a body that begins with a backslash is not seen as one by the grammar
            body = text_of(node).partition("\n")[2].rpartition("\n")[0]
            if not quoted and "$" in body:
                raise Unparsable("a here-document that cannot be parsed")
            text = body if quoted else None
        return text, later

    def _backticks(self, text: str, depth: int) -> None:
        """Walk the commands between backticks in a here-document, which the grammar takes for text."""
        for root in scripts_between_backticks(text):
            self.walk(root, depth + 1)

    def _redirect(self, node: Node, depth: int) -> Iterator[Redirect]:
        operator = next((child.type for child in node.children if not child.is_named), ">")
        for child in node.named_children:
            if child.type == "file_descriptor":
                continue
            for word in self._expanded(child, depth):
                if operator in (">&", "<&", ">&-", "<&-") and (word.text.rstrip("-").isdigit() or word.text == "-"):
                    continue
                yield Redirect(word, operator not in ("<", "<&"), appends=operator in (">>", "&>>", "<>"))

    def _assignments(self, node: Node, depth: int) -> None:
        found = self._sets(node, depth)
        self._emit(Command(sets=tuple(found), folder=self.scope.folder))
        for name, word in found:
            self.scope.variables[name] = word.text

    def _sets(self, node: Node, depth: int) -> list[tuple[str, Word]]:
        nodes = [node] if node.type == "variable_assignment" else node.named_children
        found = []
        for each in nodes:
            name, *values = each.named_children
            self._substitutions(name, depth)  # of x[$(...)]=1
            for value in values:
                self._substitutions(value, depth)
            adds = any(child.type == "+=" for child in each.children)
            word = self._words().one(values[-1]) if values else Word("")
            if adds:
                word = Word(self.scope.variables.get(text_of(name), UNKNOWN) + word.text, raw=word.raw)
            found.append((text_of(name), word))
        return found

    def _command(
        self,
        node: Node,
        depth: int,
        redirects: tuple[Redirect, ...],
        *,
        stdin: str | None = None,
        reads_text: bool = False,
    ) -> None:
        words: list[Word] = []
        sets: list[tuple[str, Word]] = []
        if node.type in ("declaration_command", "unset_command", "test_command"):
            words.append(Word(node.children[0].type))
        for child in node.named_children:
            match child.type:
                case "variable_assignment":
                    sets += self._sets(child, depth)
                case "file_redirect":
                    redirects += tuple(self._redirect(child, depth))
                case "herestring_redirect" | "heredoc_redirect":
                    stdin, _ = self._text(child, depth)
                    reads_text = True
                case _ if node.type == "test_command":
                    self._substitutions(child, depth)
                case _:
                    words += self._expanded(child, depth)
        if node.type == "declaration_command":
            self.scope.variables.update((name, word.text) for name, word in sets)
        self._emit(
            Command(
                words=tuple(words),
                sets=tuple(sets),
                redirects=redirects,
                feeds=self._feeds,
                stdin=stdin,
                reads_text=reads_text,
                piped_on=self._piped_on,
                folder=self.scope.folder,
                calls_itself=bool(words)
                and any(words[0].text == name for name, _ in self._calling)
                and self._repeats(node),
            ),
            depth,
        )

    @staticmethod
    def _repeats(node: Node) -> bool:
        following = node.next_sibling
        in_pipe = node.parent is not None and node.parent.type == "pipeline"
        return in_pipe or (following is not None and following.type == "&")

    def _emit(self, command: Command, depth: int = 0) -> None:
        self.found.append(command)
        if not command.words:
            return
        name, rest = command.program, command.words[1:]
        if name in ("cd", "pushd", "chdir"):
            self._go(rest)
        elif name in ("read", "mapfile", "readarray", "getopts", "printf"):
            self.scope.variables.update((word.text, UNKNOWN) for word in rest if word.text.isidentifier())
        elif name == "set" or name == "shift":
            self.scope.variables.update((key, UNKNOWN) for key in [*"123456789@*"])
        elif name == "alias":
            for word in rest:
                key, equals, value = word.text.partition("=")
                if equals:
                    self.scope.aliases[key] = value
        elif name in self.scope.functions:
            self._call(name, self.scope.functions[name], list(rest), depth)

    def _go(self, rest: tuple[Word, ...]) -> None:
        places = [word.text for word in rest if word.text == "-" or not word.text.startswith("-")]
        place = UNKNOWN if "-" in places or len(places) > 1 else places[0] if places else "~"
        joined = place if place.startswith(("/", "~", UNKNOWN)) else f"{self.scope.folder}/{place}".lstrip("/")
        self.scope.folder = (
            f"/{joined}" if self.scope.folder.startswith("/") and not joined.startswith(("/", "~", UNKNOWN)) else joined
        )
        self.scope.variables["PWD"] = self.scope.folder

    # --- functions

    def _define(self, node: Node) -> None:
        name = text_of(node.named_children[0])
        self.scope.functions[name] = self._defined[name] = node.named_children[-1]

    def _call(self, name: str, body: Node, rest: list[Word], depth: int) -> None:
        self._called.add(name)
        if (name, body.id) in self._calling:
            return
        outer = dict(self.scope.variables)
        given = {str(index): word.text for index, word in enumerate(rest[:9], 1)}
        everything = shlex.join(word.text for word in rest) if rest and all(w.known for w in rest) else UNKNOWN
        self.scope.variables.update({**dict.fromkeys("123456789", UNKNOWN), **given, "@": everything, "*": everything})
        self._calling.append((name, body.id))
        self.walk(body, depth + 1)
        self._calling.pop()
        for key in "123456789@*":
            self.scope.variables[key] = outer.get(key, UNKNOWN)

    # --- words

    def _words(self) -> Words:
        return Words(self.scope.variables, self._printed)

    def _expanded(self, node: Node, depth: int) -> list[Word]:
        self._substitutions(node, depth)
        return self._words().of(node)

    def _substitutions(self, node: Node, depth: int) -> None:
        """Walk the commands whose output becomes a part of a word."""
        if node.type in ("command_substitution", "process_substitution"):
            self._apart(node, depth + 1)
            return
        for child in node.named_children:
            self._substitutions(child, depth)

    def _printed(self, node: Node) -> str | None:
        """What a substitution's commands print, where that follows from their words."""
        reader = _Reader(self.scope.copy())
        for child in node.named_children:
            reader.walk(child, _DEEPEST // 2)
        return output_of(reader.found)
