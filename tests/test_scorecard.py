"""The scorecard: sections run in small and can fail, a run goes on, and documents say what was measured."""

from __future__ import annotations

import importlib
import json
import random
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from benchmarks.mixed_load import compared
from benchmarks.scorecard.__main__ import PUBLISHED, main
from benchmarks.scorecard.generated_secrets import secrets_of_patterns, secrets_of_pii, shipped_patterns
from benchmarks.scorecard.goals import GOALS, Goal, outcomes
from benchmarks.scorecard.page import shown, write
from benchmarks.scorecard.run import SECTIONS, held, measured
from benchmarks.scorecard.section import Held, NotMeasured, Section, Share, Table
from benchmarks.scorecard.sections import delivery_cuts, delivery_long, delivery_views, overblocking
from benchmarks.scorecard.sizes import SIZES
from stars_guard.audit import open_store
from stars_guard.calling import portal
from stars_guard.core.messages import Message
from stars_guard.guard import CallOptions, Guard
from stars_guard.policy import load_policy
from stars_guard.policy._loader import shipped_policies
from stars_guard.scorers.pii import KINDS
from stars_guard.testing import ScriptedBackend
from tests import hidden_scenarios as hidden

pytestmark = pytest.mark.filterwarnings("ignore")
REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run in the smallest size."""
    folder = tmp_path_factory.mktemp("scorecard")
    main(["smoke", "--out", str(folder)])
    return folder


def test_every_section_runs_in_small_and_is_on_both_pages(smoke: Path) -> None:
    found = held(smoke)
    needing_models = {"harm", "agents", "cost_engine", "peers_stream"}
    assert set(found) == set(SECTIONS) - needing_models
    page, html = ((smoke / name).read_text(encoding="utf-8") for name in ("scorecard.md", "scorecard.html"))
    for one in found.values():
        assert one.section.figures
        assert f"## {one.section.title}" in page
        assert escape(one.section.title).replace("&#x27;", "&#39;") in html
        assert f"`python -m benchmarks.scorecard smoke --only {one.name}`" in page
        assert one.date in page
    assert page.index("## What falls short") < page.index("## What holds") < page.index("## Delivery")
    assert all(f"{name}: " in page for name in needing_models)
    assert "<svg" in html
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", html)


def test_nothing_leaks_in_small(smoke: Path) -> None:
    found = held(smoke)
    for name, key in (("delivery_cuts", "leaked"), ("delivery_leaves", "leaked"), ("delivery_views", "leaked")):
        share = found[name].section.figures[key]
        assert isinstance(share, Share)
        assert (share.hits, share.of > 5) == (0, True)
    load = found["load"].section.figures
    assert (load["wrong_records"], load["open_requests"]) == (0, 0)


def test_a_run_goes_on_with_what_it_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    broken = True

    class Module:
        def __init__(self, name: str) -> None:
            self.name = name.rpartition(".")[2]

        def measure(self, size: Any) -> Section:
            asked.append(self.name)
            if self.name == "agents" and broken:
                raise KeyboardInterrupt
            if self.name == "tool_calls":
                raise NotMeasured("no tools")
            return Section(title=self.name, about="It is.", figures={"one": 1})

    monkeypatch.setattr(importlib, "import_module", Module)
    names = ["harm", "agents", "tool_calls", "load"]
    with pytest.raises(KeyboardInterrupt):
        measured(names, SIZES["smoke"], tmp_path, "it")
    broken = False
    missing = measured(names, SIZES["smoke"], tmp_path, "it")
    assert asked == ["harm", "agents", "agents", "tool_calls", "load"]
    assert missing == {"tool_calls": "no tools"}
    assert [*held(tmp_path)] == ["harm", "agents", "load"]


# --- the sections can fail


def test_secrets_are_made_of_every_shipped_pattern_and_kind_of_data() -> None:
    patterns = {pattern.regex for pattern in shipped_patterns().values()}
    for name in shipped_policies():
        written = json.dumps(load_policy(name).model_dump(mode="json", warnings=False))
        regexes = [json.loads(f'"{found}"') for found in re.findall(r'"regex": "((?:[^"\\]|\\.)+)"', written)]
        assert set(regexes) <= patterns
    made = [*secrets_of_patterns(2), *secrets_of_pii(2)]
    assert {secret.kind for secret in made} == {*shipped_patterns(), *KINDS}
    assert len({secret.text for secret in made}) == len(made)


def test_a_guard_that_only_watches_leaks_at_every_cut() -> None:
    for secret in secrets_of_pii(1):
        text = f"{delivery_cuts.BEFORE}{secret.text}{delivery_cuts.AFTER}"
        watching = {**delivery_cuts.policy_of(secret), "mode": "monitor"}
        for pieces in delivery_cuts.cuts(text, len(delivery_cuts.BEFORE), len(secret.text)):
            assert "".join(pieces) == text
            assert delivery_cuts.through_guard(watching, pieces) == text
            assert delivery_cuts.through_guard(delivery_cuts.policy_of(secret), pieces) != text


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_what_two_texts_begin_with(one: str, other: str) -> None:
    length = delivery_cuts.common(one, other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or length in (len(one), len(other))


def test_every_view_of_an_unguarded_run_sees_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "guard", lambda **given: hidden.Inner(lambda request: request))
    blind = []
    for name, view in delivery_views.views():
        seen = view(hidden.SCENARIOS["answer"])
        if hidden.BAD not in repr(seen).replace(" ", ""):
            blind.append(name)
    # these show no answers, or only where there is a checkpointer
    assert all(re.search("custom|tools|checkpoints|v3|debug|tasks", name) for name in blind), blind


def test_a_judge_that_misses_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery_long, "_passes", lambda secret, text: True)
    missed = delivery_long.measure(SIZES["smoke"]).figures["missed"]
    assert isinstance(missed, Share)
    assert missed.hits > 0


async def test_a_policy_that_rejects_everything_is_counted() -> None:
    base = load_policy("agent-tools")
    policy, missing = overblocking.runnable(base, models=False)
    assert "harmlessness" in missing
    nothing = {
        "apiVersion": "stars-guard/v1",
        "name": "nothing",
        "decoding": {"attempts": 1, "on_exhausted": "refuse"},
        "judges": [{"name": "all", "type": "patterns", "patterns": [{"name": "any", "regex": "(?s)."}]}],
        "rails": {"input": {"judges": [{"name": "in", "type": "patterns", "patterns": [{"name": "a", "regex": "."}]}]}},
    }
    for tried, expected in ((policy, "allowed"), (nothing, "rejected")):
        async with Guard(tried, model=overblocking._saying(), audit="memory://") as guard:
            assert await overblocking._checked(guard, "input", "Good morning.") == expected
            assert await overblocking._answered(guard, "The sea is calm today.\nSo is the wind.") == expected


def test_the_mixed_load_finds_records_that_are_missing_doubled_or_wrong(tmp_path: Path) -> None:
    def script(messages: Any, so_far: tuple[str, ...], chance: random.Random) -> str | None:
        return ("one ", "two ", None)[len(so_far)]

    url = f"sqlite:///{tmp_path / 'log.db'}"
    with Guard({**_PLAIN}, model=ScriptedBackend(script), audit=url).blocking as guard:
        for run in ("a", "b", "b"):
            guard.generate([Message("user", "hi")], CallOptions(run_id=run))
    right = [{"run": run, "how": "eos", "text": "one two "} for run in ("a", "b")]
    assert compared(right, url) == {"missing": 0, "doubled": 1, "wrong": 0}
    assert compared([*right, {"run": "c", "how": "eos", "text": ""}], url)["missing"] == 1
    assert compared([*right, {"check": "of nothing"}], url)["missing"] == 1
    for changed in ({"how": "refused"}, {"text": "one "}, {"how": "left", "text": "two"}):
        assert compared([{**right[0], **changed}, right[1]], url)["wrong"] == 1
    assert compared([{**right[0], "how": "left", "text": "one"}, right[1]], url)["wrong"] == 0
    portal.call(open_store(url).aclose)


_PLAIN = {
    "apiVersion": "stars-guard/v1",
    "name": "plain",
    "judges": [{"name": "k", "type": "patterns", "patterns": [{"name": "k", "regex": "AKIA"}]}],
}


# --- figures and goals


@given(st.integers(1, 400).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_intervals_are_wilsons(counted: tuple[int, int]) -> None:
    hits, of = counted
    share, z = Share(hits=hits, of=of), float(norm.ppf(0.975))
    middle = (hits + z * z / 2) / (of + z * z)
    half = z / (of + z * z) * (hits * (of - hits) / of + z * z / 4) ** 0.5
    assert share.interval == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_goals_name_figures_that_their_sections_have(smoke: Path) -> None:
    found = {**held(PUBLISHED), **held(smoke)}
    for goal in GOALS:
        section, _, figure = goal.figure.partition(".")
        assert section in SECTIONS
        # neither the published run of over-blocking nor the smoke one had models
        is_unknown = section == "overblocking" and figure in overblocking.NEEDS_ALL_JUDGES
        if section in found and not is_unknown:
            assert figure in found[section].section.figures, goal.figure
        assert (goal.at_most is None) != (goal.at_least is None)


def test_what_is_missed_stands_at_the_top_with_its_reason(tmp_path: Path) -> None:
    goal = next(goal for goal in GOALS if goal.reason and goal.at_most is not None)
    name, _, figure = goal.figure.partition(".")
    for value, heading in ((1e6, "## What falls short"), (-1.0, "## What holds")):
        section = Section(title="It", about="It is.", figures={figure: value})
        one = Held(name=name, size="full", date="2026-01-01", machine="m", command="c", seconds=1.0, section=section)
        write({name: one}, {}, page=tmp_path / "p.md", html=tmp_path / "p.html")
        page = (tmp_path / "p.md").read_text(encoding="utf-8")
        (part,) = re.findall(rf"^{heading}\n(.*?)^## ", page, re.DOTALL | re.MULTILINE)
        assert f"| {goal.goal} |" in part
        assert (goal.reason in part) == (heading == "## What falls short")


def test_what_was_not_tried_is_not_held_for_met() -> None:
    goal = Goal(goal="g", of="o", figure="load.x", at_most=0.0)
    assert goal.met_by(Share(hits=0, of=9))
    section = Section(title="It", about="It is.", figures={"wrong_records": Share(hits=0, of=0)})
    one = Held(name="load", size="full", date="d", machine="m", command="c", seconds=None, section=section)
    assert not [outcome for outcome in outcomes({"load": one}) if outcome.met]


# --- documents


def test_the_page_is_that_of_the_published_results(tmp_path: Path) -> None:
    write(held(PUBLISHED), {}, page=tmp_path / "page.md", html=tmp_path / "page.html")
    page = (REPOSITORY / "docs" / "scorecard.md").read_text(encoding="utf-8")
    assert page == (tmp_path / "page.md").read_text(encoding="utf-8")
    assert {path.stem for path in PUBLISHED.glob("*.json")} <= set(SECTIONS)


def cells_of(table: Table) -> Iterator[str]:
    for row in table.rows:
        yield from (shown(cell) for cell in row)


def figures_in(text: str) -> set[str]:
    """The numbers of a document, without those of code, links and what is named by a number."""
    for pattern in (r"(?s)```.*?```", r"(?m)^    .*$", r"`[^`]*`", r"\]\([^)]*\)", r"arXiv [\d.]+", r"\d{4}-\d\d-\d\d"):
        text = re.sub(pattern, " ", text)
    return set(re.findall(r"(?<![\w.])\d[\d,.]*\d%?|(?<![\w.])\d%?", text))


def known_figures() -> set[str]:
    """Every number that the scorecard's results have, in their tables and in what they say of how it was measured."""
    found: set[str] = set()
    for one in held(PUBLISHED).values():
        section = one.section
        texts = [section.about, *section.notes, *(cell for table in section.tables for cell in cells_of(table))]
        texts += [shown(figure) for figure in section.figures.values()]
        found |= {number for text in texts for number in figures_in(text)}
    return found


def test_every_figure_of_the_readme_was_measured() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    figures = figures_in(readme)
    assert len(figures) > 20
    assert figures - known_figures() == set()
    assert not {"0.0123", "97.3%"} & known_figures()  # made-up ones would be seen


def test_the_readme_says_where_a_rival_is_better() -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Beside other guardrails\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    peers = held(PUBLISHED)["peers_stream"].section.tables[0]
    rows = {str(row[0]): row for row in peers.rows}
    ours = rows["stars-guard, default policy"]
    for name, row in rows.items():
        if name != "no guardrail" and row[2] < ours[2]:  # type: ignore[operator]
            assert name.split(",")[0] in section.split("\n\n", 2)[-1], f"{name} is done sooner, and nobody says so"
    assert "scorecard" in section
