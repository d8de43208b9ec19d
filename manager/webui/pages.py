"""Pages for browsers, served from this package: nothing of them is fetched from anywhere else."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

STATIC = Path(__file__).parent / "static"

# Scripts, connections (WebSockets too) and fonts of this server alone. Its editor writes style elements, and its
# style sheet holds fonts and images as data.
GRAPHIQL_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The Model Store page needs nothing inline.
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
# For a file that is opened by itself: nothing of it runs.
FILE_CSP = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
_PAGE_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # The page names its files by their content: it is asked for again each time, and they never are.
    "Cache-Control": "no-cache",
}
# The views of the page; it reads from the address which one to show.
VIEWS = ("/", "/models/{key}", "/tasks", "/tasks/{key}", "/folders", "/folders/{key}", "/sign-in")


def page_routes() -> Sequence[BaseRoute]:
    """Return the routes of the Model Store page: one for each of its views, and its files."""
    files = GZipMiddleware(
        _Lasting(StaticFiles(directory=STATIC / "app", check_dir=False), hashed=r"/assets/[^/]+")
    )
    return [*(Route(view, page, methods=["GET"]) for view in VIEWS), Mount("/app", files)]


async def page(request: Request) -> Response:
    """Answer with the page, whichever view is asked for."""
    return _answer(request, "app", {"Content-Security-Policy": PAGE_CSP})


def graphiql_routes() -> Sequence[BaseRoute]:
    """Return the routes of GraphiQL: the page at GET /graphql, and its files."""
    files = GZipMiddleware(_Lasting(StaticFiles(directory=STATIC / "graphiql"), hashed=r"/page-[^/]+"))
    return [
        Route("/graphql", graphiql, methods=["GET"]),
        Mount("/static/graphiql", files),
    ]


async def graphiql(request: Request) -> Response:
    """Answer a browser with GraphiQL, and anybody else with 405: operations are sent by POST."""
    if "text/html" not in request.headers.get("Accept", "").lower():
        raise HTTPException(405, headers={"Allow": "POST"})
    return _answer(request, "graphiql", {"Content-Security-Policy": GRAPHIQL_CSP, "Vary": "Accept"})


def _answer(request: Request, folder: str, headers: Mapping[str, str]) -> Response:
    page, tag = _page(folder)
    headers = {**_PAGE_HEADERS, **headers, "ETag": tag}
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(page, headers=headers)


@cache
def _page(folder: str) -> tuple[bytes, str]:
    page = (STATIC / folder / "index.html").read_bytes()
    # By content: an update may keep a file's time and size.
    return page, f'"{sha256(page).hexdigest()[:32]}"'


class _Lasting:
    """Lets browsers keep what carries a hash of its content in its name (a path ending as `hashed`), and guess no type."""

    def __init__(self, app: ASGIApp, *, hashed: str) -> None:
        self.app = app
        self._hashed = re.compile(f"{hashed}$")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                hashed = self._hashed.search(scope["path"]) is not None
                headers["Cross-Origin-Resource-Policy"] = "same-origin"
                headers["Content-Security-Policy"] = FILE_CSP
                headers["Cache-Control"] = "public, max-age=31536000, immutable" if hashed else "no-cache"
            await send(message)

        await self.app(scope, receive, send_marked)
