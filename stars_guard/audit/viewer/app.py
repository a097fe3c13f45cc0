"""The page: what each address answers, and who may ask."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from anyio import to_thread
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from pydantic import BaseModel, StringConstraints
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stars_guard.audit._query import Filter, News, parse_time
from stars_guard.audit.shadow_stats import compare_shadows
from stars_guard.audit.store import AuditStore
from stars_guard.audit.viewer.charts import charts
from stars_guard.audit.viewer.pages import asset, load, query_of, render
from stars_guard.engines.loopback import is_loopback
from stars_guard.errors import AuditError, InputError, StarsGuardError

__all__ = ["make_app"]

_PAGE = 50
_LONGEST = 500
"""Characters of a field of the filter."""
_LARGEST = 4096
"""Bytes of a form that is sent."""
_COOKIE = "stars_guard_page"

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}

_ASSETS = {"page.css": "text/css", "page.js": "text/javascript"}


_Field = Annotated[str, StringConstraints(max_length=_LONGEST)]


class _Typed(BaseModel):
    """A filter as it stands in an address; empty fields of the form do not count."""

    since: _Field = ""
    until: _Field = ""
    policy: _Field = ""
    judge: _Field = ""
    finish: _Field = ""
    stage: _Field = ""
    run_id: _Field = ""
    text: _Field = ""
    rejected: _Field = ""
    before: _Field = ""
    before_id: _Field = ""

    def filter(self) -> Filter:
        """Raises InputError if a time cannot be read."""
        return Filter(
            since=parse_time(self.since) if self.since.strip() else None,
            until=parse_time(self.until) if self.until.strip() else None,
            policy=self.policy or None,
            judge=self.judge or None,
            finish=self.finish or None,
            stage=self.stage or None,
            run_id=self.run_id or None,
            text=self.text or None,
            rejected=bool(self.rejected),
        )


def make_app(
    store: AuditStore, *, token: str | None = None, langsmith: str | None = None, poll: float = 1.0
) -> FastAPI:
    """The page as an ASGI app.

    Args:
        token: what one must know to see anything. Without one only requests to a loopback name are answered.
        langsmith: the address of a run with ``{run_id}`` in it.
        poll: seconds between two looks for new calls, for each live view.

    Raises:
        InputError: ``langsmith`` is not such an address.
    """
    if langsmith is not None and ("{run_id}" not in langsmith or not langsmith.startswith(("https://", "http://"))):
        raise InputError(
            "the address of a run in LangSmith cannot be used", hint="give https://... with {run_id} in it"
        )
    load()
    # no pages of FastAPI's own: they load scripts from elsewhere
    app = FastAPI(title="stars-guard audit", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(_Door, token=token)

    def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
        return HTMLResponse(render(template, **values), status)

    @app.exception_handler(StarsGuardError)
    async def failed(request: Request, exc: StarsGuardError) -> HTMLResponse:
        status = 400 if isinstance(exc, InputError) else 500
        return page("message.html", status, page="", heading="That did not work", message=str(exc))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, exc: RequestValidationError) -> HTMLResponse:
        fields = ", ".join(sorted({str(error["loc"][-1])[:_LONGEST] for error in exc.errors()}))
        said = f"This cannot be searched for: {fields}. A field holds at most {_LONGEST} characters."
        return page("message.html", 400, page="", heading="That did not work", message=said)

    @app.exception_handler(404)
    async def missing(request: Request, exc: Exception) -> HTMLResponse:
        return page("message.html", 404, page="", heading="Not found", message="There is no such page.")

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in _ASSETS:
            return PlainTextResponse("not found", 404)
        return Response(asset(name), media_type=_ASSETS[name])

    @app.get("/")
    async def overview(typed: Annotated[_Typed, Query()]) -> HTMLResponse:
        wanted = typed.filter()
        stats = await store.astats(wanted)
        return page(
            "overview.html",
            page="overview",
            path="/",
            wanted=wanted,
            typed=typed,
            stats=stats,
            charts=charts(stats),
            query=query_of(wanted, typed.model_dump()),
        )

    @app.get("/calls")
    async def calls(typed: Annotated[_Typed, Query()]) -> HTMLResponse:
        wanted = typed.filter()
        before = (typed.before, typed.before_id) if typed.before else None
        rows = await store.asearch(wanted, limit=_PAGE + 1, before=before)
        shown = rows[:_PAGE]
        older = query_of(wanted, typed.model_dump(), shown[-1].place) if len(rows) > _PAGE else ""
        return page(
            "calls.html",
            page="calls",
            path="/calls",
            wanted=wanted,
            typed=typed,
            rows=shown,
            older=older,
            first=before is not None,
            query=query_of(wanted, typed.model_dump()),
        )

    @app.get("/compare")
    async def compare(typed: Annotated[_Typed, Query()]) -> HTMLResponse:
        wanted = typed.filter()
        found = await to_thread.run_sync(lambda: compare_shadows(store.select(wanted)))
        return page("compare.html", page="compare", path="/compare", wanted=wanted, typed=typed, found=found)

    @app.get("/calls/{call_id}")
    async def call(call_id: str) -> HTMLResponse:
        try:
            record = await store.aget(call_id)
        except AuditError as exc:
            return page("message.html", 404, page="calls", heading="No such call", message=str(exc))
        return page("call.html", page="calls", record=record, langsmith=langsmith)

    @app.get("/live")
    async def live(typed: Annotated[_Typed, Query()]) -> HTMLResponse:
        wanted = typed.filter()
        return page(
            "live.html",
            page="live",
            path="/live",
            wanted=wanted,
            typed=typed,
            query=query_of(wanted, typed.model_dump()),
        )

    @app.get("/events")
    async def events(request: Request, typed: Annotated[_Typed, Query()]) -> StreamingResponse:
        # a browser that comes back says what it has seen
        start = request.headers.get("last-event-id")
        wanted = typed.filter()
        try:
            news = await store.aafter(start, wanted)
        except ValueError:  # another log's cursor
            news = await store.aafter(None, wanted)
        return StreamingResponse(_events(store, wanted, news, poll), media_type="text/event-stream")

    @app.post("/login")
    async def login(request: Request) -> Response:
        form = await _form(request)
        if form is None:
            return PlainTextResponse("this is longer than any token", 413, {"connection": "close"})
        if token is None or not _same(form.get("token", [""])[0], token):
            return page("login.html", 401, page="login", wrong=True)
        return _let_in("/", token, request.scope["scheme"])

    return app


async def _form(request: Request) -> dict[str, list[str]] | None:
    """The form that was sent; None if it is longer than any of ours. No more of it is read than that."""
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST:
                return None
    except ClientDisconnect:
        return None
    return parse_qs(body.decode(errors="replace"))


async def _events(store: AuditStore, wanted: Filter, news: News, poll: float) -> AsyncGenerator[str, None]:
    """Calls as server-sent events. The first is empty: from then on nothing is missed.

    Args:
        news: of the first look.
    """
    yield f"id: {news.cursor}\nevent: ready\ndata: {{}}\n\n"
    while True:
        for row in news.calls:
            yield f"id: {news.cursor}\ndata: {json.dumps(asdict(row))}\n\n"
        if not news.calls:
            yield ": still here\n\n"
        await asyncio.sleep(poll)
        news = await store.aafter(news.cursor, wanted)


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode(), token.encode())


def _pass(token: str) -> str:
    """What the cookie holds: it opens the page, but is not the token."""
    return hmac.new(token.encode(), b"stars-guard page", "sha256").hexdigest()


def _let_in(path: str, token: str, scheme: str) -> RedirectResponse:
    answer = RedirectResponse(path, 303)
    answer.set_cookie(_COOKIE, _pass(token), httponly=True, samesite="strict", secure=scheme == "https")
    return answer


class _Door:
    """Who may ask: on loopback whoever names it so, which keeps other sites out; else who knows the token."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *own]
            await send(message)

        answer = self._answer(Request(scope)) or self._app
        await answer(scope, receive, guarded)

    def _answer(self, request: Request) -> Response | None:
        """What to say instead of the page; None lets the request in."""
        # not request.url: it is made of the Host header, whatever that is
        path: str = request.scope["path"]
        scheme: str = request.scope["scheme"]
        try:
            address = urlsplit(f"//{request.headers.get('host', '')}")
            host, _ = address.hostname or "", address.port
        except ValueError:
            return PlainTextResponse("the Host header names no host", 400)
        if self._token is None:
            if is_loopback(host):
                return None
            return PlainTextResponse("this page is served on loopback: ask for it as http://127.0.0.1", 421)
        if path == "/login" or path.startswith("/static/"):
            return None
        if "token" in request.query_params and _same(request.query_params["token"], self._token):
            rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
            # one slash: an address that begins with two is another host's
            there = "/" + quote(path.lstrip("/")) + (f"?{urlencode(rest)}" if rest else "")
            return _let_in(there, self._token, scheme)
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if _same(request.cookies.get(_COOKIE, ""), _pass(self._token)) or _same(bearer, self._token):
            return None
        return HTMLResponse(render("login.html", page="login", wrong="token" in request.query_params), 401)
