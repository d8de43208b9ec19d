"""Pages for browsers, served from this package: nothing of them is fetched from anywhere else."""

from collections.abc import Sequence
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
_PAGE_HEADERS = {
    "Content-Security-Policy": GRAPHIQL_CSP,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The page names its files by their content: it is asked for again each time, and they never are.
    "Cache-Control": "no-cache",
    "Vary": "Accept",
}


def graphiql_routes() -> Sequence[BaseRoute]:
    """Return the routes of GraphiQL: the page at GET /graphql, and its files."""
    return [
        Route("/graphql", graphiql, methods=["GET"]),
        Mount("/static/graphiql", GZipMiddleware(_Lasting(StaticFiles(directory=STATIC / "graphiql")))),
    ]


async def graphiql(request: Request) -> Response:
    """Answer a browser with GraphiQL, and anybody else with 405: operations are sent by POST."""
    if "text/html" not in request.headers.get("Accept", "").lower():
        raise HTTPException(405, headers={"Allow": "POST"})
    page, tag = _page()
    headers = _PAGE_HEADERS | {"ETag": tag}
    if request.headers.get("If-None-Match") == tag:
        return Response(status_code=304, headers=headers)
    return HTMLResponse(page, headers=headers)


@cache
def _page() -> tuple[bytes, str]:
    page = (STATIC / "graphiql" / "index.html").read_bytes()
    # By content: an update may keep a file's time and size.
    return page, f'"{sha256(page).hexdigest()[:32]}"'


class _Lasting:
    """Lets browsers keep what carries a hash of its content in its name, and guess no type."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                hashed = scope["path"].rpartition("/")[2].startswith("page-")
                headers["Cache-Control"] = "public, max-age=31536000, immutable" if hashed else "no-cache"
            await send(message)

        await self.app(scope, receive, send_marked)
