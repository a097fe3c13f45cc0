"""The audit page in a real browser, served by the real command's server from a real log."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from audit_records import NOON, call, tried, vetoed
from conftest import missing, policy, rewarding, vetoing, words
from playwright.sync_api import Browser, Page, Playwright, expect, sync_playwright
from rich.console import Console
from typer.testing import CliRunner

from stars_guard.audit import AuditStore, MemoryStore, Text, open_store
from stars_guard.audit.record import Turn
from stars_guard.audit.viewer import report
from stars_guard.audit.viewer.app import make_app
from stars_guard.audit.viewer.serve import serve
from stars_guard.calling import portal
from stars_guard.cli.app import app
from stars_guard.cli.audit import serve_page
from stars_guard.core.messages import Message
from stars_guard.engines.loopback import is_loopback
from stars_guard.errors import InputError, MissingExtra
from stars_guard.guard import CallOptions, Guard
from stars_guard.testing.scripted import ScriptedBackend

EVIL = "<script>alert('x')</script><img src=x onerror=alert('y')>"
TOKEN = "a token of twenty-odd characters"


def draw(store: AuditStore, question: str, seed: int, **more: Any) -> str:
    """One real call on a scripted model; its id."""
    made = Guard(policy(**more), model=ScriptedBackend(words()), judges=[rewarding(), vetoing()], audit=store)
    return made.blocking.generate([Message("user", question)], CallOptions(seed=seed, run_id=f"run/{seed}")).call_id


def add(store: AuditStore, *records: Any) -> None:
    for record in records:
        portal.call(lambda record=record: store.append(record))


@contextmanager
def serving(store: AuditStore, **options: Any) -> Iterator[str]:
    server = uvicorn.Server(
        uvicorn.Config(make_app(store, poll=0.05, **options), log_level="error", ws="none", timeout_graceful_shutdown=1)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(10)
    assert not thread.is_alive()


def _program(started: Playwright) -> str:
    """Chromium or Chrome as installed here, or Playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    mac = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    candidates = (*map(shutil.which, names), mac, started.chromium.executable_path)
    found = [program for program in candidates if program and Path(program).exists()]
    if not found:
        missing("Chromium", "see make system")
    return found[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=_program(started), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must not raise, ask anything of other hosts, break its content policy or open a dialog."""
    made = browser.new_page()
    made.set_default_timeout(10_000)
    wrong: list[str] = []
    made.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda message: wrong.append(message.text) if "Content Security" in message.text else None)
    made.on("request", lambda request: wrong.append(request.url) if "127.0.0.1" not in request.url else None)
    yield made
    made.close()
    assert wrong == []


@pytest.fixture(params=["jsonl", "sqlite"])
def url_of_log(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    return f"{request.param}://{'/' if request.param == 'sqlite' else ''}{tmp_path}/audit.{request.param}"


@pytest.fixture
def store(url_of_log: str) -> Iterator[AuditStore]:
    made = open_store(url_of_log)
    for seed in range(3):
        draw(made, f"question {seed}", seed)
    draw(made, "a strict question", 3, name="strict", attempts=1, on_exhausted="refuse")
    yield made
    portal.call(made.aclose)


def test_overview(page: Page, store: AuditStore) -> None:
    with serving(store) as url:
        page.goto(url)
        total = store.stats().total
        assert page.locator(".tiles dd").all_inner_texts()[:2] == ["4", str(total.proposals)]
        titles = page.locator("figcaption").all_inner_texts()
        assert titles == [
            "Rejected segments over time",
            "Reward against threshold by segment",
            "Rejected segments by judge",
            "Rejected segments by policy",
            "Tokens generated over time",
            "Mean time of a call",
            "Acceptance by segment",
        ]
        page.get_by_text("The numbers of “Rejected segments by judge”").click()
        table = page.get_by_role("region", name="Rejected segments by judge, table")
        cells = table.locator("tbody tr").first.locator("td").all_inner_texts()
        first = store.stats().judges[0]
        assert cells == [first.judge, str(first.vetoes), str(first.low_reward)]
        page.get_by_role("textbox", name="Policy").fill("strict")
        page.get_by_role("button", name="Filter").click()
        assert page.locator(".tiles dd").first.inner_text() == "1"
        page.get_by_role("link", name="See these calls").click()
        assert page.locator("table.calls tbody tr").count() == 1


def test_list_filter_and_call(page: Page, store: AuditStore) -> None:
    with serving(store, langsmith="https://smith.example/r/{run_id}") as url:
        page.goto(f"{url}/calls")
        rows = page.locator("table.calls tbody tr")
        assert rows.count() == 4
        page.get_by_role("searchbox", name="Text").fill("QUESTION 1")
        page.get_by_role("searchbox", name="Text").press("Enter")
        assert rows.count() == 1
        assert page.get_by_role("searchbox", name="Text").input_value() == "QUESTION 1"
        page.get_by_role("link", name="question 1").click()
        record = store.get("run/1")
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Call {record.call_id[:12]}")
        assert page.get_by_role("link", name="in LangSmith").get_attribute("href") == "https://smith.example/r/run%2F1"
        kept = [a.text.text for s in record.segments for a in s.attempts if a.attempt == s.kept]
        assert page.locator(".answer .kept").evaluate_all("all => all.map(each => each.textContent)") == kept
        segment = next(s for s in record.segments if s.attempts[0].verdict == "rejected")
        rejected = segment.attempts[0]
        beside = page.locator(f'[id="{record.call_id}-{segment.index}"] details.beside')
        text = beside.locator(".struck").first
        expect(text).not_to_be_visible()
        beside.locator("summary").first.click()
        expect(beside.get_by_text(rejected.reason, exact=False).first).to_be_visible()
        expect(beside.locator(".figures").first).to_contain_text(f"threshold{rejected.threshold:.3f}")
        expect(text).not_to_be_visible()
        beside.get_by_text("Show the text that was rejected").first.click()
        expect(text).to_be_visible()
        assert text.text_content() == rejected.text.text


def test_a_link_in_the_answer_unfolds_what_was_rejected_there(page: Page, store: AuditStore) -> None:
    with serving(store) as url:
        page.goto(f"{url}/calls/{store.get('run/0').call_id}")
        mark = page.locator("a.gone").first
        target = (mark.get_attribute("href") or "")[1:]
        mark.click()
        expect(page.locator(f'[id="{target}"] details.beside')).to_have_attribute("open", "")


def test_pages_of_a_long_list(page: Page) -> None:
    store = MemoryStore()
    store.records = [call(f"c{n:03}", minutes=n) for n in range(120)]
    with serving(store) as url:
        page.goto(f"{url}/calls?policy=default")
        seen: list[str] = []
        while True:
            links = page.locator("table.calls a")
            seen += [(link or "").rpartition("/")[2] for link in links.evaluate_all("all => all.map(a => a.href)")]
            if not page.get_by_role("link", name="Older calls").count():
                break
            page.get_by_role("link", name="Older calls").click()
        assert seen == [f"c{n:03}" for n in reversed(range(120))]
        page.get_by_role("link", name="Newest").click()
        assert page.url == f"{url}/calls?policy=default"


def test_live(page: Page, store: AuditStore) -> None:
    with serving(store) as url:
        page.goto(f"{url}/live?policy=test")
        expect(page.get_by_role("status")).to_have_text("live")
        log = page.get_by_role("log")
        assert log.get_attribute("aria-live") == "polite"
        new = draw(store, EVIL, 10)
        draw(store, "of another policy", 11, name="other")
        expect(log.locator("li")).to_have_count(1)
        assert log.get_by_role("link").inner_text() == EVIL
        page.get_by_role("button", name="Pause").click()
        draw(store, "while paused", 12)
        expect(page.get_by_role("status")).to_have_text("paused, 1 waiting")
        expect(log.locator("li")).to_have_count(1)
        page.get_by_role("button", name="Go on").click()
        expect(log.locator("li")).to_have_count(2)
        log.get_by_role("link", name=EVIL).click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Call {new[:12]}")


def test_live_comes_back_where_it_was(store: AuditStore) -> None:
    def read(response: httpx.Response, count: int) -> list[str]:
        lines = (line for line in response.iter_lines() if line.startswith(("id:", 'data: {"')))
        return [next(lines) for _ in range(count)]

    with serving(store) as url, httpx.Client() as client:
        with client.stream("GET", f"{url}/events") as response:
            (cursor,) = read(response, 1)
        missed = draw(store, "missed", 20)
        with client.stream("GET", f"{url}/events", headers={"last-event-id": cursor.removeprefix("id: ")}) as response:
            assert missed in read(response, 3)[2]


def test_a_cursor_of_another_log_starts_afresh(store: AuditStore) -> None:
    headers = {"last-event-id": "no number"}
    with serving(store) as url, httpx.stream("GET", f"{url}/events", headers=headers) as response:
        assert response.status_code == 200
        assert next(response.iter_lines()).startswith("id: ")


def test_checks_around_an_answer(page: Page, store: AuditStore) -> None:
    answer = store.get("run/0")
    rejected = (tried(0, "a secret", verdict="rejected", veto="words"),)
    nothing = Text(content="", chars=0)
    check = call("check", 0, (rejected,), stage="input", finish="refused", run_id="run/0", answer=nothing)
    passed = call(
        "passed",
        0,
        ((tried(0, "raw", 0.9),),),
        stage="output",
        finish="redacted",
        tools=("search",),
        answer=Text(content="let through", chars=11),
    )
    add(store, check, passed)
    with serving(store) as url:
        page.goto(f"{url}/calls/check")
        expect(page.locator(".meta")).to_contain_text("input")
        assert page.get_by_role("region", name="Text").inner_text().strip() == "WHAT WAS LET THROUGH"
        expect(page.get_by_text("a secret")).not_to_be_visible()
        page.get_by_role("link", name="all its records").click()
        links = page.locator("table.calls a").evaluate_all("all => all.map(a => a.href)")
        ids = {link.rpartition("/")[2] for link in links}
        assert ids == {"check", answer.call_id}
        page.goto(f"{url}/calls/passed")
        expect(page.get_by_role("region", name="Text")).to_contain_text("let through")
        page.get_by_text("How it was generated").click()
        expect(page.locator(".pairs")).to_contain_text("search")


def test_a_call_of_a_real_model(page: Page, tmp_path: Path) -> None:
    store = open_store(f"jsonl://{tmp_path}/real.jsonl")
    made = Guard("default", backend="transformers", audit=store)
    done = made.blocking.generate([Message("user", "Name a river.")], CallOptions(seed=1, max_tokens=16))
    with serving(store) as url:
        page.goto(url)
        page.get_by_role("link", name="Calls", exact=True).click()
        page.get_by_role("link", name="Name a river.").click()
        shown = page.locator(".answer .kept").evaluate_all("all => all.map(each => each.textContent).join('')")
        assert shown == done.text
        page.get_by_text("What the judges said").first.click()
        expect(page.locator(".scores").first).to_contain_text("harmlessness")


def test_text_of_models_stays_text(page: Page) -> None:
    store = MemoryStore()
    prompt = (Turn(role=EVIL, content=Text(content=EVIL, chars=1)),)
    attempts = ((vetoed(0, EVIL, judge=EVIL), tried(1, EVIL, 0.9, reason=EVIL)),)
    store.records = [
        call(
            "evil",
            0,
            attempts,
            prompt=prompt,
            policy=EVIL,
            run_id=EVIL,
            reason=EVIL,
            backend={EVIL: EVIL},
            scorers={EVIL: {EVIL: EVIL}},
        )
    ]
    written = store.records[0].segments[0].model_copy(update={"kept": 1, "how": "accepted"})
    store.records[0] = store.records[0].model_copy(update={"segments": (written,)})
    with serving(store, langsmith="https://smith.example/{run_id}") as url:
        for path in ("/", "/calls", "/calls/evil", "/calls/none", f"/calls?policy={EVIL}&text={EVIL}", "/live"):
            response = page.goto(url + path)
            assert response is not None
            assert "default-src 'none'" in response.headers["content-security-policy"]
            assert page.locator("main script, main img").count() == 0
        page.goto(f"{url}/calls/evil")
        assert page.locator(".answer").inner_text().replace("✕1", "").strip() == EVIL
        assert page.locator(".struck").text_content() == EVIL


def test_texts_that_are_not_kept(page: Page) -> None:
    store = MemoryStore()
    kept_out = (Text(chars=7), Text(chars=8, sha256="ab" * 32))
    attempts = tuple((tried(0, "x", 0.9).model_copy(update={"text": text}),) for text in kept_out)
    store.records = [call("hidden", 0, attempts, answer=Text(chars=15))]
    with serving(store) as url:
        page.goto(f"{url}/calls/hidden")
        page.locator("details.beside > summary").first.click()
        page.get_by_text("Show the text").first.click()
        expect(page.locator(".struck").first).to_have_text("7 characters, not kept")
        assert page.locator(".struck").nth(1).text_content() == "8 characters, sha256 abababababab…"


def test_keyboard(page: Page, store: AuditStore) -> None:
    with serving(store) as url:
        page.goto(f"{url}/calls/{store.get('run/0').call_id}")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        fold = page.locator("details.beside > summary").first
        for _ in range(30):
            page.keyboard.press("Tab")
            if fold.evaluate("each => each === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(page.locator("details.beside").first).to_have_attribute("open", "")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator(".struck").first).to_be_visible()


def test_every_field_and_picture_has_a_name(page: Page, store: AuditStore) -> None:
    with serving(store) as url:
        for path in ("/", "/calls", "/live", f"/calls/{store.get('run/0').call_id}"):
            page.goto(url + path)
            for kind in ("searchbox", "textbox", "combobox", "checkbox", "button", "link", "img", "region", "log"):
                for each in page.get_by_role(kind).all():  # type: ignore[arg-type]
                    assert re.match(r"""- '?\w+ ".""", each.aria_snapshot().splitlines()[0]), each
            assert page.get_by_role("main").count() == page.get_by_role("banner").count() == 1
            assert page.get_by_role("heading", level=1).count() == 1


def contrast(page: Page, selector: str) -> float:
    """Of a text against the background that it stands on, as WCAG counts it."""
    return page.locator(selector).first.evaluate(
        """each => {
        const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const light = colour => {
            context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
            const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map(v => v / 255)
                .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const text = light(getComputedStyle(each).color);
        let behind = each;
        while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
        const back = light(getComputedStyle(behind).backgroundColor);
        return (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
        }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(browser: Browser, store: AuditStore, scheme: Any) -> None:
    page = browser.new_page(color_scheme=scheme)
    with serving(store) as url:
        page.goto(f"{url}/calls")
        dark = "rgb(16, 20, 24)"
        background = page.locator("body").evaluate("each => getComputedStyle(each).backgroundColor")
        assert (background == dark) == (scheme == "dark")
        for selector in ("h1", "label", ".badge.bad", ".badge.good", ".when", "table.calls a", "button[type=submit]"):
            assert contrast(page, selector) >= 4.5, selector
        button = page.get_by_role("button", name="Theme")
        button.click()
        button.click()
        expect(button).to_have_text("Theme: dark")
        page.reload()
        assert page.locator("body").evaluate("each => getComputedStyle(each).backgroundColor") == dark
    page.close()


def test_a_token_opens_the_page(page: Page, store: AuditStore) -> None:
    with serving(store, token=TOKEN) as url:
        for path in ("/", "/calls", "/events", "/calls/none"):
            assert httpx.get(url + path).status_code == 401
            assert "question" not in httpx.get(url + path).text
        assert httpx.get(f"{url}/?token=wrong").status_code == 401
        assert httpx.get(f"{url}/", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        away = httpx.get(f"{url}//elsewhere.example/", params={"token": TOKEN})
        assert (away.status_code, away.headers["location"]) == (303, "/elsewhere.example/")
        page.goto(f"{url}/calls")
        page.get_by_role("textbox", name="Token").fill("wrong")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_have_text("That is not the token.")
        page.get_by_role("textbox", name="Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
        (cookie,) = page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert TOKEN not in cookie["value"]
        page.context.clear_cookies()
        page.goto(f"{url}/calls?policy=strict&token={TOKEN}")
        assert page.url == f"{url}/calls?policy=strict"
        assert page.locator("table.calls tbody tr").count() == 1


def test_loopback_is_not_for_other_sites(store: AuditStore) -> None:
    with serving(store) as url:
        port = urlsplit(url).port
        for host, status in (
            ("evil.example", 421),
            (f"evil.example:{port}", 421),
            (f"localhost:{port}", 200),
            (f"[::1]:{port}", 200),
            ("127.0.0.1.evil.example", 421),
        ):
            assert httpx.get(url, headers={"host": host}).status_code == status
        headers = httpx.get(url).headers
        assert "access-control-allow-origin" not in headers
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        for path in ("/docs", "/openapi.json", "/static/../app.py", "/static/app.py"):
            assert httpx.get(url + path).status_code == 404
    assert not is_loopback("0.0.0.0")
    assert is_loopback("::1")


def test_what_is_wrong_is_said(page: Page, store: AuditStore, tmp_path: Path) -> None:
    with serving(store) as url:
        page.goto(f"{url}/calls?since=someday")
        expect(page.locator(".why")).to_contain_text("'someday' is not a time")
    for langsmith in ("javascript:{run_id}", "https://smith.example/"):
        with pytest.raises(InputError, match="address of a run"):
            make_app(store, langsmith=langsmith)
    with pytest.raises(InputError, match="token is shorter"):
        serve(store, host="127.0.0.1", port=0, token="short", langsmith=None, say=print)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="cannot serve on"):
        serve(store, host="127.0.0.1", port=taken.getsockname()[1], token=None, langsmith=None, say=print)


def test_serve_makes_a_token_off_loopback(store: AuditStore, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    answers: list[int] = []

    def look(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        thread = threading.Thread(target=lambda: run(server, sockets))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        address = said[0].replace("0.0.0.0", "127.0.0.1")
        for each in (address, address.split("?")[0]):
            answers.append(httpx.get(each, follow_redirects=True).status_code)
        server.should_exit = True
        thread.join(10)

    run = uvicorn.Server.run
    monkeypatch.setattr(uvicorn.Server, "run", look)
    serve(store, host="0.0.0.0", port=0, token=None, langsmith=None, say=said.append)
    assert answers == [200, 401]
    assert len(said[0].partition("?token=")[2]) >= 32


def test_the_command_serves_until_it_is_interrupted(url_of_log: str, store: AuditStore) -> None:
    command = [sys.executable, "-c", "from stars_guard.cli import main; main()", "audit", "ui", url_of_log]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        address = worker.stdout.readline().split()[-1]
        assert "Overview" in httpx.get(address).text
        worker.send_signal(signal.SIGINT)
        assert worker.wait(20) == 0


def test_the_page_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "stars_guard.audit.viewer.serve")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtra, match=r"stars-guard\[ui\]"):
        serve_page(Console(), MemoryStore(), "127.0.0.1", 0, None, None)


def test_report(browser: Browser, store: AuditStore, url_of_log: str, tmp_path: Path) -> None:
    add(store, call("evil", -999, ((vetoed(0, EVIL), tried(1, EVIL, 0.9)),)))
    path = tmp_path / "out" / "report.html"
    done = CliRunner().invoke(app, ["audit", "report", url_of_log, "-o", str(path)])
    assert done.exit_code == 0, done.output
    assert path.stat().st_mode & 0o077 == 0
    page = browser.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(path.as_uri())
    assert page.locator("article").count() == 5
    assert page.locator("figure").count() == 7
    assert page.locator("script").count() == 0
    # the style sheet is let in by its digest
    assert page.locator(".card").first.evaluate("each => getComputedStyle(each).borderTopLeftRadius") == "10px"
    text = page.locator("article", has_text="Call evil").locator(".struck").first
    expect(text).not_to_be_visible()
    assert text.text_content() == EVIL
    page.close()
    assert wrong == []


def test_report_of_the_newest_and_of_nothing() -> None:
    store = MemoryStore()
    assert "No calls fit." in report(store)
    store.records = [call(f"c{n}", minutes=n) for n in range(9)]
    made = report(store, limit=2)
    assert "The newest 2 calls" in made
    assert re.findall(r'<h2 id="(\w+)"', made) == ["c8", "c7"]
    assert NOON.isoformat()[:10] in made
