"""Signing in, who is signed in, signing out, and what the cookie is good for."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie

import httpx
import pytest
from sqlalchemy import update

from manager.app import create_app
from manager.auth import new_token
from manager.graphql import subscriptions
from manager.models import ApiToken, Base, User, UserStatus
from tests.graphql.served import Manager, Person
from tests.graphql.sockets import WATCH, Served, serve
from tests.graphql.test_subscriptions import a_new_task, report

pytestmark = pytest.mark.anyio

ME = {"query": "{ me { email } }"}
PAGE = {"X-Stowage-Request": "page"}
FOREIGN = [
    {"Origin": "http://elsewhere"},
    {"Origin": "http://manager.elsewhere"},
    {"Origin": "http://manager:81"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


async def sign_in(manager: Manager, token: str | None = None, **headers: str) -> httpx.Response:
    body = {"token": token or manager.admin.token}
    return await manager.http.post("/session", json=body, headers=headers)


async def change(manager: Manager, table: type[Base], **values: object) -> None:
    async with manager.database.begin() as session:
        await session.execute(update(table).values(**values))


def cookie_in(response: httpx.Response) -> str:
    (morsel,) = SimpleCookie(response.headers["Set-Cookie"]).values()
    return f"{morsel.key}={morsel.value}"


async def test_a_token_becomes_a_session_that_no_script_reads(manager: Manager) -> None:
    response = await sign_in(manager)
    assert (response.status_code, response.headers["Cache-Control"]) == (200, "no-store")
    admin = {"id": str(manager.admin.id), "email": "admin@localhost", "role": "ADMIN"}
    assert response.json() == {"user": admin, "expiresAt": None}
    kept = response.headers["Set-Cookie"]
    assert {part.strip() for part in kept.split(";")[1:]} == {"HttpOnly", "Path=/", "SameSite=strict"}
    assert manager.admin.token not in kept
    again = await manager.http.get("/session")
    assert (again.status_code, again.json()) == (200, response.json())
    ended = await manager.http.delete("/session")
    assert (ended.status_code, ended.content) == (204, b"")
    after = await manager.http.get("/session")
    assert (after.status_code, after.json()["code"]) == (401, "UNAUTHENTICATED")


async def test_the_end_of_the_token_is_told(manager: Manager) -> None:
    end = datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)
    await change(manager, ApiToken, expires_at=end)
    assert (await sign_in(manager)).json()["expiresAt"] == "2040-01-02T03:04:05+00:00"


async def test_over_https_the_cookie_never_goes_without(manager: Manager) -> None:
    transport = manager.http._transport
    async with httpx.AsyncClient(transport=transport, base_url="https://manager") as http:
        response = await http.post("/session", json={"token": manager.admin.token})
        assert "Secure" in response.headers["Set-Cookie"]
        assert "Secure" in (await http.delete("/session")).headers["Set-Cookie"]


async def test_stacks_on_one_machine_do_not_share_it(manager: Manager) -> None:
    names = {
        cookie_in(await sign_in(manager, Host=host)).partition("=")[0]
        for host in ("127.0.0.1:8765", "127.0.0.1:8080", "models.example.org")
    }
    assert names == {"stowage-session-8765", "stowage-session-8080", "stowage-session"}


async def test_a_token_that_is_no_good_is_told_so_in_a_sentence(manager: Manager) -> None:
    person = await manager.person()

    async def refusal(token: str, status: int = 401) -> str:
        response = await sign_in(manager, token)
        assert response.status_code == status, token
        assert "Set-Cookie" not in response.headers
        body = response.json()
        assert (body["code"], body["field"]) == (
            "UNAUTHENTICATED" if status == 401 else "BAD_REQUEST",
            "token",
        )
        return str(body["message"])

    assert "no such token" in await refusal("stw_wrong")
    assert "no such token" in await refusal("ü\n;=")
    assert "enter" in await refusal("  ")
    assert "too long" in await refusal("x" * 5000, 400)
    await change(manager, User, status=UserStatus.INACTIVE)
    assert "may not sign in" in await refusal(person.token)
    await change(manager, ApiToken, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert "expired at" in await refusal(person.token)
    await change(manager, ApiToken, revoked_at=datetime.now(UTC))
    assert "revoked" in await refusal(person.token)


async def test_a_token_with_a_blank_around_it_is_taken(manager: Manager) -> None:
    assert (await sign_in(manager, f" {manager.admin.token}\n")).status_code == 200


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"token=x", "application/x-www-form-urlencoded"), (b'{"token": "x"}', "text/plain"), (b"{", "application/json"),
     (b"[]", "application/json"), (b'{"token": 5}', "application/json"), (b"\xff", "application/json")],
)  # fmt: skip
async def test_only_a_token_in_json_signs_in(manager: Manager, content: bytes, kind: str) -> None:
    response = await manager.http.post("/session", content=content, headers={"Content-Type": kind})
    assert (response.status_code, response.json()["code"]) == (400, "BAD_REQUEST")


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: " ".join(headers.values()))
async def test_another_sites_page_signs_nobody_in_or_out(manager: Manager, headers: dict[str, str]) -> None:
    response = await sign_in(manager, **headers)
    assert (response.status_code, response.json()["code"]) == (403, "FORBIDDEN")
    assert "Set-Cookie" not in response.headers
    response = await manager.http.delete("/session", headers=headers)
    assert (response.status_code, response.headers.get("Set-Cookie")) == (403, None)


async def test_the_cookie_counts_for_the_page_alone(manager: Manager) -> None:
    await sign_in(manager)
    response = await manager.http.post("/graphql", json=ME)
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (403, "FORBIDDEN")
    for wrong in ({"X-Stowage-Request": "other"}, *(PAGE | foreign for foreign in FOREIGN)):
        response = await manager.http.post("/graphql", json=ME, headers=wrong)
        assert response.status_code == 403, wrong
        assert response.json()["data"] is None
    for good in ({}, {"Origin": "http://manager"}, {"Sec-Fetch-Site": "same-origin"}):
        response = await manager.http.post("/graphql", json=ME, headers=PAGE | good)
        assert response.json() == {"data": {"me": {"email": "admin@localhost"}}}


async def test_a_bearer_token_wins_over_the_cookie(manager: Manager) -> None:
    person = await manager.person()
    await sign_in(manager)
    bearer = {"Authorization": f"Bearer {person.token}"}
    response = await manager.http.post("/graphql", json=ME, headers=bearer)
    assert response.json()["data"]["me"] == {"email": person.row.email}
    wrong = {"Authorization": "Bearer stw_wrong"}
    assert (await manager.http.post("/graphql", json=ME, headers=wrong | PAGE)).status_code == 401


@pytest.mark.parametrize("value", ["", "x", "%%%", "stw_wrong", "\xff", "c3R3X3dyb25n"])
async def test_a_cookie_of_somebody_elses_making_is_nobody(manager: Manager, value: str) -> None:
    headers = [(b"Cookie", b"stowage-session=" + value.encode("latin-1"))]
    assert (await manager.http.get("/session", headers=headers)).status_code == 401
    page = [*headers, (b"X-Stowage-Request", b"page")]
    assert (await manager.http.post("/graphql", json=ME, headers=page)).status_code == 401


async def test_the_session_ends_with_its_token(manager: Manager) -> None:
    await sign_in(manager)
    assert (await manager.http.post("/graphql", json=ME, headers=PAGE)).status_code == 200
    await change(manager, ApiToken, revoked_at=datetime.now(UTC))
    assert (await manager.http.post("/graphql", json=ME, headers=PAGE)).status_code == 401
    ended = await manager.http.get("/session")
    assert (ended.status_code, "revoked" in ended.json()["message"]) == (401, True)


async def test_nothing_of_a_token_is_logged(manager: Manager, capfd: pytest.CaptureFixture[str]) -> None:
    token, _ = new_token()
    await sign_in(manager, token)
    await sign_in(manager)
    await manager.http.post("/graphql", json=ME)
    told = "".join(capfd.readouterr())
    assert token not in told
    assert manager.admin.token not in told


async def test_a_setting_turns_page_and_sessions_off(manager: Manager) -> None:
    cookie = cookie_in(await sign_in(manager))
    section = manager.settings.manager.model_copy(update={"page": False})
    app = create_app(manager.settings.model_copy(update={"manager": section}))
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://manager") as http,
    ):
        for path in ("/", "/tasks", "/app/assets/x", "/session"):
            assert (await http.get(path)).status_code == 404, path
        assert (await http.post("/session", json={"token": manager.admin.token})).status_code == 404
        headers = PAGE | {"Cookie": cookie}
        assert (await http.post("/graphql", json=ME, headers=headers)).status_code == 401


# Over a WebSocket.


@pytest.fixture
async def served(manager: Manager) -> AsyncIterator[Served]:
    async with serve(manager) as served:
        yield served


async def cookie_for(served: Served, by: Person) -> tuple[str, str]:
    """Sign in where the sockets are; returns the origin and the cookie."""
    origin = served.address.removesuffix("/graphql").replace("ws", "http", 1)
    async with httpx.AsyncClient(base_url=origin, trust_env=False) as http:
        return origin, cookie_in(await http.post("/session", json={"token": by.token}))


async def test_a_socket_of_our_page_needs_no_token(served: Served) -> None:
    origin, cookie = await cookie_for(served, served.manager.admin)
    async with served.opened(headers={"Cookie": cookie, "Origin": origin}) as client:
        await client.init(None)
        await client.subscribe("a", ME["query"])
        assert await client.next("a") == {"me": {"email": "admin@localhost"}}


async def test_a_socket_of_another_page_is_refused(served: Served) -> None:
    origin, cookie = await cookie_for(served, served.manager.admin)
    for headers in ({}, {"Origin": "http://elsewhere"}, {"Origin": f"{origin}0"}, {"Origin": "null"}):
        async with served.opened(headers={"Cookie": cookie, **headers}) as client:
            await client.send(type="connection_init")
            assert await client.closed() == 4403, headers
    person = await served.manager.person()
    async with served.opened(headers={"Cookie": cookie, "Origin": "http://elsewhere"}) as client:
        await client.init({"token": person.token})
        await client.subscribe("a", ME["query"])
        assert await client.next("a") == {"me": {"email": person.row.email}}


async def test_what_a_session_follows_ends_with_its_token(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions, "PERMISSION_SECONDS", 0.0)
    manager = served.manager
    origin, cookie = await cookie_for(served, manager.admin)
    task = await a_new_task(manager)
    async with served.opened(headers={"Cookie": cookie, "Origin": origin}) as client:
        await client.init(None)
        await client.subscribe("a", WATCH, task=str(task.id))
        await client.next("a")
        await change(manager, ApiToken, revoked_at=datetime.now(UTC))
        await report(manager, task.id, 1)
        refusal = (await client.message("a"))["payload"]
        assert refusal["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        assert (await client.message("a"))["type"] == "complete"
        await client.subscribe("b", ME["query"])
        assert (await client.error("b"))["extensions"]["code"] == "UNAUTHENTICATED"
