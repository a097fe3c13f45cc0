"""What the site of the docs has besides the files in docs/: a hook of mkdocs.

- Reference pages, made from the code, so that they cannot be behind it.
- Pages whose file lies elsewhere in the repository, such as SECURITY.md.
- A place in the navigation for each page of docs/ that mkdocs.yml gives none.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import langchain_stars
import stars_guard
from stars_guard import errors
from stars_guard.audit.versions import VERSIONS
from stars_guard.cli.app import app
from stars_guard.policy.schema import own_schema_text

REPOSITORY = Path(__file__).parent.parent
ELSEWHERE = {
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
    "results.md": "benchmarks/RESULTS.md",
}
"""Pages whose text is that of a file outside of docs/."""

MORE = "More"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give a place to pages of docs/ that have none."""
    placed = set(_pages_of(config.nav))
    docs = Path(config.docs_dir)
    left = sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
    more = [{_title(docs / page): page} for page in left if page not in placed]
    if more and config.nav is not None:
        config.nav.append({MORE: more})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have no file in docs/."""
    for page, source in ELSEWHERE.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_within_site(text)))
    for page, text in made_pages().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository lead to their pages."""
    return _within_site(markdown)


def made_pages() -> dict[str, str]:
    """The pages that are made from the code, by their address."""
    return {
        "reference/api.md": _api(),
        "reference/langchain.md": _langchain(),
        "reference/policy.md": _policy(),
        "reference/cli.md": "\n".join(_commands()),
        "reference/records.md": _records(),
        "reference/errors.md": _errors(),
    }


def _pages_of(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    elif isinstance(nav, dict):
        for item in nav.values():
            yield from _pages_of(item)
    else:
        for item in nav or ():
            yield from _pages_of(item)


def _title(path: Path) -> str:
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else path.stem


def _within_site(markdown: str) -> str:
    for page, source in ELSEWHERE.items():
        markdown = re.sub(rf"\]\((?:\.\./)?{re.escape(source)}", f"]({page}", markdown)
    return re.sub(r"\]\(docs/", "](", markdown)


# --- pages made from the code


def _api() -> str:
    rooms: dict[str, list[str]] = {}
    for name, module in stars_guard._HOMES.items():
        if name != "__version__":
            rooms.setdefault(module, []).append(name)
    about = "Everything that `import stars_guard` exports, with `stars_guard.testing`, is the public API."
    parts = [f"# Python\n\n{about} [Errors](errors.md) have a page of their own.\n"]
    order = ["guard", *(room for room in rooms if room != "guard")]
    for room in order:
        parts.append(f"## {_ROOMS.get(room, room)}\n")
        parts += [f"::: stars_guard.{room}.{name}\n" for name in rooms[room]]
    parts.append("## Test your parts\n")
    parts += [f"::: stars_guard.testing.{name}\n" for name in ("BackendTests", "ScorerTests", "AuditStoreTests")]
    return "\n".join(parts)


_ROOMS = {
    "guard": "The guard",
    "audit": "The audit log",
    "backends": "Backends",
    "calling.checks": "Checks",
    "core.events": "Events",
    "core.grammar": "Grammars",
    "core.judging": "Judgements",
    "core.messages": "Messages",
    "core.sampling": "Sampling",
    "core.segments": "Segments",
    "core.tools": "Tools",
    "policy": "Policies",
    "scorers": "Judges",
    "testing": "Doubles for tests",
}


def _langchain() -> str:
    names = "\n".join(f"::: langchain_stars.{name}\n" for name in langchain_stars.__all__)
    return f"# LangChain classes\n\n[LangChain](../langchain.md) shows how they are used.\n\n{names}"


def _policy() -> str:
    schema = json.loads(own_schema_text())
    about = "Every key of a policy file. `stars-guard policy schema` prints the same as JSON Schema,"
    more = "with the judges of packages that you have installed."
    parts = [f"# Policy schema\n\n{about} {more}\n", "## A policy\n", *_keys(schema)]
    for name, part in sorted(schema.get("$defs", {}).items()):
        parts += [f"## {name}\n", *(_keys(part) if "properties" in part else [f"{_type(part)}\n"])]
    return "\n".join(parts)


def _keys(part: dict[str, Any]) -> Iterator[str]:
    if about := part.get("description"):
        yield f"{_escaped(about)}\n"
    yield "| key | type | default | what it is |\n| --- | --- | --- | --- |"
    required = part.get("required", [])
    for key, value in part.get("properties", {}).items():
        default = "required" if key in required else f"`{json.dumps(value['default'])}`" if "default" in value else ""
        cells = (f"`{key}`", _type(value), default.replace("|", "\\|"), _escaped(value.get("description", "")))
        yield f"| {' | '.join(cells)} |"
    yield ""


def _type(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in value:
        return ", ".join(f"`{word}`" for word in value["enum"])
    if "const" in value:
        return f"`{value['const']}`"
    for several in ("anyOf", "oneOf", "allOf"):
        if several in value:
            return " or ".join(dict.fromkeys(_type(one) for one in value[several]))
    kind = value.get("type", "any")
    if kind == "array":
        return f"list of {_type(value['items'])}" if value.get("items") else "list"
    return str(kind) if isinstance(kind, str) else " or ".join(kind)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _commands() -> Iterator[str]:
    command = typer.main.get_command(app)
    yield "# Commands\n"
    yield f"{command.help}\n"
    yield "`stars-guard COMMAND --help` shows the same.\n"
    yield from _within(command, "stars-guard")


def _within(group: Any, name: str) -> Iterator[str]:
    for word, command in group.commands.items():
        whole = f"{name} {word}"
        if hasattr(command, "commands"):
            yield f"## {whole}\n\n{command.help or ''}\n"
            yield from _within(command, whole)
            continue
        level = "##" if name == "stars-guard" else "###"
        yield f"{level} {whole}\n\n{inspect.cleandoc(command.help or '')}\n"
        with command.context_class(command, info_name=whole) as context:
            pieces = command.collect_usage_pieces(context)
            yield f"    {' '.join([whole, *pieces])}\n"
            rows = [row for parameter in command.params if (row := _parameter(parameter, context))]
        if rows:
            yield "| option | what it does |\n| --- | --- |"
            yield from rows
            yield ""


def _parameter(parameter: Any, context: Any) -> str | None:
    if getattr(parameter, "hidden", False) or parameter.name == "help":
        return None
    if parameter.param_type_name == "argument":
        help_text = getattr(parameter, "help", "") or ""
        return f"| `{parameter.name.upper()}` | {_escaped(help_text)} |"
    record = parameter.get_help_record(context)
    return None if record is None else f"| `{record[0]}` | {_escaped(record[1])} |"


def _records() -> str:
    rows = "\n".join(f"| {version} | {_escaped(about)} |" for version, about in sorted(VERSIONS.items()))
    return (
        "# Versions of records\n\nA record says in `schema_version` which version it has. Records of every version "
        "below stay readable and verifiable.\n\n| version | what is new |\n| --- | --- |\n"
        f"{rows}\n\nThe fields are those of [CallRecord](api.md), which holds these parts:\n\n"
        "::: stars_guard.audit.record\n    options: {show_root_heading: false, members: "
        "[Turn, ScoreEntry, Attempt, Segment, End, Review, RuleEntry]}\n"
    )


def _errors() -> str:
    tree = inspect.cleandoc(errors.__doc__ or "")
    body = "\n".join(f"::: stars_guard.errors.{name}\n" for name in errors.__all__)
    return f"# Errors\n\n{tree}\n\n{body}"
