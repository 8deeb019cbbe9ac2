"""The site of a study: a judge's pages behind their link, the admin's behind another, and nothing for anybody else."""

import asyncio
import csv
import io
import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib.resources import files
from typing import Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from moslora.errors import ConfigError
from moslora.judging.forms import read_form
from moslora.judging.guarding import Guard
from moslora.judging.judgements import read_study
from moslora.judging.pages import render
from moslora.judging.study import CHOICES, Choice, Judge, RefusedError, Study

STATIC = {
    "judge.css": "text/css",
    "judge.js": "text/javascript",
    "admin.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
COOKIE_SECONDS = 60 * 86_400
LONGEST_SECONDS = 86_400.0
KEPT_BY_BROWSER = "private, max-age=86400, immutable"  # every name is random and of one judge

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def site(study: Study, *, origins: Iterable[str]) -> ASGIApp:
    """The ASGI application that serves a study under the origins it is reached by, such as `http://127.0.0.1:8000`."""
    pages, admin = JudgePages(study), AdminPages(study)
    routes = [
        Route("/", pages.front),
        Route("/j/{token}", pages.welcome),
        Route("/judge", pages.show),
        Route("/judge/answer", pages.answer, methods=["POST"]),
        Route("/judge/undo", pages.undo, methods=["POST"]),
        Route("/picture/{token}", pages.picture),
        Route("/photo/{token}", pages.photo),
        Route("/admin/{token}", admin.enter),
        Route("/admin", admin.show),
        Route("/admin/stop", admin.stop, methods=["POST"]),
        Route("/admin/reopen", admin.reopen, methods=["POST"]),
        Route("/admin/judge", admin.add, methods=["POST"]),
        Route("/export/judgements.json", admin.export_json),
        Route("/export/judgements.csv", admin.export_csv),
        Route("/static/{name}", _static),
    ]
    handlers: dict[Any, Any] = {
        RefusedError: _refused,
        ConfigError: _mistaken,
        HTTPException: _missing,
        Exception: _failed,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), origins=origins)


class JudgePages:
    """What a judge sees and sends."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._cookie = f"judge_{study.told['cookie']}"

    async def front(self, request: Request) -> Response:
        """Where a judge goes without their link."""
        if request.cookies.get(self._cookie):
            return RedirectResponse("/judge", 303)
        raise RefusedError(403, "Open the personal link that you were sent.")

    async def welcome(self, request: Request) -> Response:
        """A personal link: explains, and remembers whose browser this is."""
        token = request.path_params["token"]
        judge = self._study.judge_of(token)
        if judge is None:
            raise RefusedError(404, "This link is not known. Copy it whole, or ask for it again.")
        far = self._study.progress_of(judge)
        shown = {"kind": self._study.kind, "done": far.done, "total": far.total, "questions": self._texts}
        response = self._end(judge) if self._study.is_closed else _page("welcome.html", who=judge.name, **shown)
        _remember(response, request, self._cookie, token)
        return response

    async def show(self, request: Request) -> Response:
        """The pair that comes next, or that there is none."""
        judge = self._judge(request)
        page = self._study.page(judge)
        if self._study.is_closed or page is None:
            return self._end(judge)
        shown = {"page": page, "kind": self._study.kind, "questions": self._texts, "shown": round(time.time() * 1000)}
        return _page("judge.html", who=judge.name, **shown)

    async def answer(self, request: Request) -> Response:
        """Keep the answers about a pair; the next page is shown once they are on disk."""
        judge = self._judge(request)
        names = [f"q{number}" for number in range(len(self._study.questions))]
        form = await read_form(request, fields=["pair", "shown", *names])
        choices = [form[name] for name in names]
        if not set(choices) <= set(CHOICES):
            raise RefusedError(400, f"An answer is one of {', '.join(CHOICES)}; nothing was kept.")
        kept = self._study.answer(
            judge, form["pair"], choices=cast(list[Choice], choices), seconds=_seconds_since(form["shown"])
        )
        await asyncio.wrap_future(kept)
        return RedirectResponse("/judge", 303)

    async def undo(self, request: Request) -> Response:
        """Go back one pair."""
        judge = self._judge(request)
        form = await read_form(request, fields=["pair"])
        token = None if form["pair"] == _end_of(judge) else form["pair"]
        await asyncio.wrap_future(self._study.undo(judge, token))
        return RedirectResponse("/judge", 303)

    async def picture(self, request: Request) -> Response:
        """One of the pictures of this judge's pairs."""
        return _png(self._study.picture(self._judge(request), request.path_params["token"]))

    async def photo(self, request: Request) -> Response:
        """A photo of a subject."""
        self._judge(request)
        return _png(self._study.photo(request.path_params["token"]))

    def _end(self, judge: Judge) -> Response:
        return _page("end.html", who=judge.name, pair=_end_of(judge), is_closed=self._study.is_closed)

    def _judge(self, request: Request) -> Judge:
        judge = self._study.judge_of(request.cookies.get(self._cookie, ""))
        if judge is None:
            raise RefusedError(403, "Open the personal link that you were sent.")
        return judge

    @property
    def _texts(self) -> list[str]:
        return self._study.question_texts


class AdminPages:
    """What the one who runs the study sees: how far everybody is, and nothing of who is ahead."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._cookie = f"admin_{study.told['cookie']}"

    async def enter(self, request: Request) -> Response:
        """The admin's link: the page, and a cookie for what is done on it."""
        token = request.path_params["token"]
        if not self._study.is_admin(token):
            raise RefusedError(404, "This link is not known. Copy it whole from where the server was started.")
        response = self._overview(request)
        _remember(response, request, self._cookie, token)
        return response

    async def show(self, request: Request) -> Response:
        """The page again."""
        self._check(request)
        return self._overview(request)

    async def stop(self, request: Request) -> Response:
        """Close judging."""
        return await self._change(request, self._study.stop)

    async def reopen(self, request: Request) -> Response:
        """Go on with judging."""
        return await self._change(request, self._study.reopen)

    async def add(self, request: Request) -> Response:
        """A further judge."""
        self._check(request)
        form = await read_form(request, fields=["name"])
        await asyncio.wrap_future(self._study.add_judge(form["name"].strip()))
        return RedirectResponse("/admin", 303)

    async def export_json(self, request: Request) -> Response:
        """All judgements as JSON, once judging is closed."""
        self._check_closed(request)
        text = json.dumps(asdict(read_study(self._study.folder)), default=str, ensure_ascii=False, indent=1)
        return _download(text, "application/json")

    async def export_csv(self, request: Request) -> Response:
        """All judgements as a table, once judging is closed; what a spreadsheet would run has a ' in front."""
        self._check_closed(request)
        rows = [asdict(one) for one in read_study(self._study.folder).judgements]
        stream = io.StringIO()
        writer = csv.DictWriter(stream, rows[0].keys() if rows else ["judge"])
        writer.writeheader()
        writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
        return _download(stream.getvalue(), "text/csv")

    def _check(self, request: Request) -> None:
        if not self._study.is_admin(request.cookies.get(self._cookie, "")):
            raise RefusedError(403, "Open the admin link that was printed when the server was started.")

    def _check_closed(self, request: Request) -> None:
        self._check(request)
        if not self._study.is_closed:
            raise RefusedError(409, "Judging is open. Results can be had once it is closed.")

    async def _change(self, request: Request, change: Any) -> Response:
        self._check(request)
        await read_form(request, fields=[])
        await asyncio.wrap_future(change())
        return RedirectResponse("/admin", 303)

    def _overview(self, request: Request) -> Response:
        told = self._study.told
        progress = self._study.progress()
        return _page(
            "admin.html",
            base=str(request.base_url).rstrip("/"),
            progress=progress,
            study=self._study,
            pairs=told["pairs_planned"],
            checks=told["same"] + told["swapped"],
            planned=told["judges_planned"] * told["pairs_planned"] * len(self._study.questions),
            counted=self._study.counted(),
            added=len(progress) - told["judges_planned"],
            is_complete=all(one.done == one.total for one in progress),
        )


async def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    content = files("moslora.judging").joinpath("static", name).read_bytes()
    return Response(content, media_type=STATIC[name], headers={"cache-control": "no-cache"})


async def _refused(request: Request, error: Exception) -> Response:
    refused = cast(RefusedError, error)
    return _page("refused.html", refused.status, reason=refused.reason, back=_back(request), onward=refused.onward)


async def _mistaken(request: Request, error: Exception) -> Response:
    return _page("refused.html", 400, reason=str(error), back=_back(request), onward="Go on")


async def _failed(request: Request, error: Exception) -> Response:
    reason = "Something went wrong here; nothing was kept. Try again."
    return _page("refused.html", 500, reason=reason, back=_back(request), onward="Go on")


async def _missing(request: Request, error: Exception) -> Response:
    status = cast(HTTPException, error).status_code
    return _page("refused.html", status, reason="There is nothing here. Use the link as it was given.", back=None)


def _end_of(judge: Judge) -> str:
    """What stands for a pair on the page after the last one."""
    return f"end-{judge.id}"


def _back(request: Request) -> str | None:
    if request.method != "POST":
        return None
    return "/admin" if request.url.path.startswith("/admin") else "/judge"


def _page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    return HTMLResponse(render(template, **values), status)


def _png(content: bytes | None) -> Response:
    if content is None:
        raise HTTPException(404)
    return Response(content, media_type="image/png", headers={"cache-control": KEPT_BY_BROWSER})


def _download(text: str, media_type: str) -> Response:
    return Response(text, media_type=media_type, headers={"content-disposition": "attachment"})


def _remember(response: Response, request: Request, name: str, token: str) -> None:
    response.set_cookie(
        name, token, max_age=COOKIE_SECONDS, secure=request.url.scheme == "https", httponly=True, samesite="strict"
    )


def _seconds_since(shown: str) -> float:
    try:
        seconds = time.time() - int(shown[:20]) / 1000
    except ValueError as error:
        raise RefusedError(400, "This form cannot be read; nothing was kept.") from error
    return min(max(0.0, round(seconds, 3)), LONGEST_SECONDS)


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
