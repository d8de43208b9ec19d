"""The page's session: a token in a cookie that no script can read.

The cookie holds the token itself and nothing is kept here, so that any replica can read it, and a token that is revoked or
expires ends its sessions too. A browser sends the cookie along whoever asks, so it counts only for what a page of this
origin alone can send: a header that no form has, or a WebSocket whose Origin is ours.
"""

import base64
import re
from collections.abc import Sequence

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from manager.auth import sign_in
from manager.db import Database
from manager.models import ApiToken, User
from proxy_client.errors import BadRequest, Forbidden, Unauthenticated

REQUEST_HEADER = "X-Stowage-Request"
MAX_BODY_BYTES = 4096
_COOKIE = "stowage-session"
_NO_STORE = {"Cache-Control": "no-store"}


def session_routes() -> Sequence[BaseRoute]:
    """Return the routes by which the page signs in, asks who it is, and signs out."""
    return [
        Route("/session", open_session, methods=["POST"]),
        Route("/session", show_session, methods=["GET"]),
        Route("/session", close_session, methods=["DELETE"]),
    ]


def authorization_of(connection: HTTPConnection) -> str | None:
    """Return the header Authorization, or what it would be for the token in the cookie; None without either.

    Raises `Forbidden` for a cookie that came with what another site's page could have sent as well.
    """
    if (header := connection.headers.get("Authorization")) is not None:
        return header
    if not connection.app.state.settings.manager.page or (token := _token_in(connection)) is None:
        return None
    if connection.scope["type"] == "websocket":
        if "Origin" not in connection.headers:
            raise Forbidden("the cookie counts for pages of this origin alone; send a token instead")
    elif connection.headers.get(REQUEST_HEADER) != "page":
        raise Forbidden(
            f"the cookie counts with the header {REQUEST_HEADER}: page alone; add it, or send a token instead"
        )
    _insist_on_our_origin(connection)
    return f"Bearer {token}"


async def open_session(request: Request) -> Response:
    """Sign in: 200 with the user and the cookie, or 401 that says what is wrong with the token."""
    _insist_on_our_origin(request)
    token = _token_of(request.headers.get("Content-Type", ""), await _body(request))
    user, kept = await sign_in(_database(request), token)
    response = JSONResponse(_shown(user, kept), headers=_NO_STORE)
    # For the browser's session: without an age it goes with the browser.
    response.set_cookie(
        _cookie_name(request),
        base64.urlsafe_b64encode(token.encode()).decode().rstrip("="),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return response


async def show_session(request: Request) -> Response:
    """Say who is signed in, or 401."""
    if (token := _token_in(request)) is None:
        raise Unauthenticated("nobody is signed in; sign in with a token")
    return JSONResponse(_shown(*await sign_in(_database(request), token)), headers=_NO_STORE)


async def close_session(request: Request) -> Response:
    """Sign out."""
    _insist_on_our_origin(request)
    response = Response(status_code=204, headers=_NO_STORE)
    response.delete_cookie(
        _cookie_name(request),
        path="/",
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return response


def _insist_on_our_origin(connection: HTTPConnection) -> None:
    """Raise `Forbidden` where the browser says that the page of another origin asks."""
    origin, site = connection.headers.get("Origin"), connection.headers.get("Sec-Fetch-Site")
    ours = origin is None or re.sub(r"^https?://", "", origin) == connection.headers.get("Host")
    # The scheme is compared by the browser: it alone knows the one that it used.
    if not ours or site not in {None, "same-origin", "none"}:
        raise Forbidden(
            "this is for pages of this origin alone; a reverse proxy must pass the header Host on"
        )


def _cookie_name(connection: HTTPConnection) -> str:
    # Cookies know no ports, and a machine may serve several stacks.
    port = re.search(r":(\d{1,5})$", connection.headers.get("Host", ""))
    return f"{_COOKIE}-{port[1]}" if port else _COOKIE


def _token_in(connection: HTTPConnection) -> str | None:
    if (value := connection.cookies.get(_cookie_name(connection))) is None:
        return None
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True).decode()
    except ValueError:
        return ""


def _token_of(content_type: str, body: bytes) -> str:
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise BadRequest("send the token as JSON, with Content-Type: application/json")
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise BadRequest("the body is not valid JSON") from exc
    token = asked.get("token") if isinstance(asked, dict) else None
    if not isinstance(token, str):
        raise BadRequest('send {"token": "…"}', field="token")
    if not (token := token.strip()):
        raise Unauthenticated("enter a token", field="token")
    return token


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise BadRequest("this is too long to be a token", field="token")
    return bytes(body)


def _database(request: Request) -> Database:
    database: Database = request.app.state.services.database
    return database


def _shown(user: User, token: ApiToken) -> dict[str, object]:
    return {
        "user": {"id": str(user.id), "email": user.email, "role": user.role.name},
        "expiresAt": token.expires_at.isoformat() if token.expires_at else None,
    }
