"""Pictures of the audit page for docs/: real calls of the embedded model, served by the page, taken in Chromium."""

from __future__ import annotations

import argparse
import socket
import tempfile
import threading
from pathlib import Path

import uvicorn
from playwright.sync_api import sync_playwright

from stars_guard.audit import open_store
from stars_guard.audit.viewer.app import make_app
from stars_guard.cli.demo import PROMPTS
from stars_guard.core.messages import Message
from stars_guard.guard import CallOptions, Guard

DOCS = Path(__file__).parent.parent / "docs"


def draw(url: str, seeds: int) -> None:
    """Answer the demo's prompts under two policies."""
    for policy in ("default", "strict"):
        guard = Guard(policy, backend="transformers", audit=url)
        for seed in range(seeds):
            for prompt in PROMPTS:
                guard.blocking.generate([Message("user", prompt)], CallOptions(seed=seed, max_tokens=96))
                print(policy, seed, prompt)


def take(base: str) -> None:
    """Overview and list in light colours, a call in dark ones."""
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1240, "height": 1240}, color_scheme="light")
        page.goto(base)
        page.screenshot(path=DOCS / "audit-overview.png")
        page.set_viewport_size({"width": 1240, "height": 760})
        page.goto(f"{base}/calls?rejected=1")
        page.screenshot(path=DOCS / "audit-calls.png")
        page.close()
        page = chromium.new_page(viewport={"width": 1240, "height": 1000}, color_scheme="dark")
        page.goto(f"{base}/calls?rejected=1&policy=strict")
        page.get_by_role("link", name=PROMPTS[1]).first.click()
        beside = page.locator("details.beside.bad").first
        beside.locator("summary").first.click()
        beside.locator("details.text > summary").first.click()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=DOCS / "audit-call.png")
        chromium.close()


def main() -> None:
    """Generate, unless a log is given, serve, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="take pictures of this log instead of generating one")
    parser.add_argument("--seeds", type=int, default=3, help="calls for each prompt and policy")
    given = parser.parse_args()
    url = given.url or f"jsonl://{tempfile.mkdtemp()}/audit.jsonl"
    if given.url is None:
        draw(url, given.seeds)
    server = uvicorn.Server(uvicorn.Config(make_app(open_store(url)), log_level="error", timeout_graceful_shutdown=1))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        take(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
