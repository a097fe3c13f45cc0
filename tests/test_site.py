"""The site of the docs: it builds strictly, says all that the code has, and loads nothing from elsewhere."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import typer
from mkdocs.config.defaults import MkDocsConfig
from test_cli_output import commands

import langchain_stars
import stars_guard
import stars_guard.testing
from stars_guard import errors
from stars_guard.audit.versions import VERSIONS
from stars_guard.cli._console import Terminal
from stars_guard.cli.app import _picture, app

REPOSITORY = Path(__file__).parent.parent
OF_LANGCHAIN = {"is_lc_serializable", "get_lc_namespace"}
ELSEWHERE = r"""((?:https?:)?//[^"'\s>)]+)"""
LOADED = re.compile(rf"""(?:<(?:script|img|iframe|source)\b[^>]*\bsrc|<link\b[^>]*\bhref)=["']?{ELSEWHERE}""")
IN_STYLES = re.compile(rf"""(?:url\(|@import\s+)["']?{ELSEWHERE}""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it: a link that leads nowhere is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def text_of(page: Path) -> str:
    html = page.read_text(encoding="utf-8")
    return unescape(re.sub(r"<[^>]+>", "", html[html.index("<article") : html.index("</article>")]))


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    loaded = {found for page in pages for found in LOADED.findall(page.read_text(encoding="utf-8"))}
    assert loaded == set()
    styles = [*pages, *site.rglob("*.css"), *site.rglob("*.svg")]
    assert {found for style in styles for found in IN_STYLES.findall(style.read_text(encoding="utf-8"))} == set()


def test_every_command_has_its_place(site: Path) -> None:
    text = text_of(site / "reference" / "cli.html")
    assert all(f"stars-guard {name}" in text for name in commands(typer.main.get_command(app)))  # type: ignore[arg-type]
    assert "--older-than" in text


def test_every_export_error_and_version_has_its_place(site: Path) -> None:
    ids = set(re.findall(r'id="(stars_guard\.[\w.]+)"', (site / "reference" / "api.html").read_text(encoding="utf-8")))
    shown = {anchor.rpartition(".")[2] for anchor in ids}
    ours = set(stars_guard.__all__) - set(errors.__all__) - {"__version__", "Event"}
    assert ours <= shown
    page = (site / "reference" / "errors.html").read_text(encoding="utf-8")
    assert all(f'id="stars_guard.errors.{name}"' in page for name in errors.__all__)
    assert all(str(version) in text_of(site / "reference" / "records.html") for version in VERSIONS)
    assert "on_exhausted" in text_of(site / "reference" / "policy.html")


def test_every_key_of_a_policy_is_described() -> None:
    schema = json.loads((REPOSITORY / "policies" / "schema.json").read_text(encoding="utf-8"))
    parts = {"policy": schema, **schema["$defs"]}
    keys = {(name, key): about for name, part in parts.items() for key, about in part.get("properties", {}).items()}
    assert len(keys) > 100
    assert [key for key, about in keys.items() if key[1] != "type" and not about.get("description")] == []


def test_every_public_name_and_method_is_described() -> None:
    silent = []
    for module in (stars_guard, stars_guard.testing, langchain_stars):
        for name in module.__all__:
            part = getattr(module, name)
            if not inspect.isclass(part) and not inspect.isfunction(part):
                continue  # an alias of a type, or the version
            own = vars(part).items() if inspect.isclass(part) and not name.endswith("Tests") else ()
            ours = [(f"{name}.{key}", value) for key, value in own if key[0] != "_" and key not in OF_LANGCHAIN]
            methods = [
                (key, value) for key, value in ours if callable(value) or isinstance(value, property | classmethod)
            ]
            silent += [key for key, value in [(name, part), *methods] if not inspect.getdoc(value)]
    assert silent == []


def test_a_page_that_nobody_placed_is_placed(tmp_path: Path) -> None:
    """Whoever adds a page has it on the site, also if mkdocs.yml does not know it yet."""
    hook: dict[str, Any] = runpy.run_path(str(REPOSITORY / "scripts" / "site_pages.py"))
    (tmp_path / "old.md").write_text("# Old\n")
    (tmp_path / "new.md").write_text("# A new page\n\ntext\n")
    config = MkDocsConfig()
    config.load_dict({"docs_dir": str(tmp_path), "nav": [{"First": [{"Old": "old.md"}]}]})
    nav = hook["on_config"](config).nav
    assert nav == [{"First": [{"Old": "old.md"}]}, {"More": [{"A new page": "new.md"}]}]


def test_every_page_of_ours_has_its_place(site: Path) -> None:
    """Each in a group, and none in the group for pages that nobody has placed."""
    front = (site / "index.html").read_text(encoding="utf-8")
    tabs = re.findall(r'md-tabs__link">\s*(.*?)\s*</a>', front)
    assert tabs == ["Get started", "LangChain", "Policies", "Run", "Extend", "Reference", "Project"]
    placed = re.findall(r'<a href="([\w/-]+\.html)" class="md-nav__link', front)
    assert {path.stem for path in (REPOSITORY / "docs").glob("*.md")} - {"index"} <= {Path(at).stem for at in placed}


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    config = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8")
    plain = re.sub(r"(?s)^hooks:.*?\n|^plugins:.*?(?=^\S)|^nav:.*", "", config, flags=re.MULTILINE)
    (tmp_path / "mkdocs.yml").write_text(plain)
    (tmp_path / "docs").mkdir()
    for link, code in (("index.md", 0), ("nowhere.md", 1), ("#nowhere", 1)):
        (tmp_path / "docs" / "index.md").write_text(f"# Page\n\n[there]({link})\n")
        # not --quiet: mkdocs then counts no warnings, and so passes over them
        done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict"], cwd=tmp_path, check=False)
        assert done.returncode == code, link


def test_pictures_of_the_demo_load_nothing() -> None:
    console = Terminal(record=True)
    with console.capture():
        console.print("text")
    picture = _picture(console)
    assert "text" in picture
    assert not IN_STYLES.findall(picture)
