"""What no request gets past: names this server does not go by, other sites' forms, and headers every answer carries."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORM = "application/x-www-form-urlencoded"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",  # "no-referrer" would have browsers send the origin of a form as null
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-robots-tag": "noindex, nofollow",
}
NOT_KEPT = "no-store"


class Guard:
    """An ASGI application inside, for these origins alone (`http://127.0.0.1:8000`)."""

    def __init__(self, app: ASGIApp, *, origins: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.lower() for origin in origins)
        self._schemes = {urlsplit(origin).netloc: urlsplit(origin).scheme for origin in self._origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("cache-control", NOT_KEPT)
            await send(message)

        refused = self._refused(scope)
        if refused is None:  # behind a tunnel, the server itself would see http
            scope = {**scope, "scheme": self._schemes[Headers(scope=scope)["host"].lower()]}
        await (refused or self._app)(scope, receive, send_with_headers)

    def _refused(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if scope["type"] != "http" or host not in self._schemes or len(headers.getlist("host")) != 1:
            return PlainTextResponse("This server does not go by that name; use the link as it was given.", 421)
        if scope["method"] in ("GET", "HEAD"):
            return None
        origin = headers.get("origin", "").lower()
        is_own = origin in self._origins and urlsplit(origin).netloc == host
        if not is_own or headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("This form was sent from another site; nothing was kept.", 403)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
            return PlainTextResponse(f"Forms come as {FORM}; nothing was kept.", 415)
        return None
