"""Who may call the proxy, and what it makes of the manager's word."""

import hmac
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette

from proxy_client.errors import PermissionRevoked, Unauthenticated, Unavailable
from storage_proxy import auth
from storage_proxy.api import routes
from storage_proxy.auth import ImportCancelled, ManagerAuthorizer, check_secret
from storage_proxy.settings import Settings

pytestmark = pytest.mark.anyio

TASK = UUID(int=1)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "secret").write_text("first\nsecond\nthird\n")
    return Settings.model_validate(
        {
            "proxy": {
                "name": "local",
                "database-file": tmp_path / "database",
                "secret-file": tmp_path / "secret",
                "manager-url": "http://manager.invalid",
                "authorize-deadline": 0.2,
            },
            "volume": {"volume1": {"path": tmp_path}},
        }
    )


# Who calls.


async def test_every_door_but_the_health_checks_wants_the_secret(settings: Settings) -> None:
    site: Any = SimpleNamespace(settings=settings)
    app = Starlette(routes=routes(site))
    transport = httpx.ASGITransport(app=app)
    guarded = 0
    async with httpx.AsyncClient(transport=transport, base_url="http://proxy") as http:
        for route in routes(site):
            if route.path in {"/healthz", "/readyz"}:
                continue
            for method in (route.methods or set()) - {"HEAD"}:
                for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer third"}):
                    answer = await http.request(method, route.path, headers=header)
                    assert answer.status_code == httpx.codes.UNAUTHORIZED, (method, route.path)
                guarded += 1
    assert guarded >= 15


@pytest.mark.parametrize(
    "shown", [None, "", "Bearer", "Bearer ", "Bearer firs", "Bearer first ", "Bearer fírst"]
)
def test_a_wrong_secret_is_refused(settings: Settings, shown: str | None) -> None:
    with pytest.raises(Unauthenticated):
        check_secret(shown, settings.secrets)


def test_two_secrets_are_accepted_and_all_are_compared(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []

    def compare(shown: bytes, kept: bytes) -> bool:
        compared.append(kept)
        return shown == kept

    monkeypatch.setattr(hmac, "compare_digest", compare)
    for secret in ("first", "second"):
        check_secret(f"Bearer {secret}", settings.secrets)
        assert compared == [b"first", b"second"]
        compared.clear()


def test_the_file_is_read_at_every_call(settings: Settings) -> None:
    settings.proxy.secret_file.write_text("newer\nfirst\n")
    for secret in ("newer", "first"):
        check_secret(f"Bearer {secret}", settings.secrets)
    with pytest.raises(Unauthenticated):
        check_secret("Bearer second", settings.secrets)


# What the manager says.

Asking = Callable[..., ManagerAuthorizer]


@pytest.fixture
async def asking(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Asking]:
    """Make an authorizer whose manager gives these answers one after the other, the last one for ever."""
    monkeypatch.setattr(auth, "RETRY_SECONDS", 0.01)
    made: list[ManagerAuthorizer] = []

    def make(*answers: httpx.Response | None) -> ManagerAuthorizer:
        left = list(answers)

        def answer(request: httpx.Request) -> httpx.Response:
            assert request.url.path == f"/internal/imports/{TASK}/authorize"
            assert request.headers["authorization"] == f"Bearer {settings.secrets[0]}"
            said = left.pop(0) if len(left) > 1 else left[0]
            if said is None:
                raise httpx.ConnectError("refused")
            return said

        made.append(ManagerAuthorizer(settings, transport=httpx.MockTransport(answer)))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


def said(status: int = 200, **body: Any) -> httpx.Response:
    return httpx.Response(status, json=body)


UNUSABLE = [None, said(503), said(500), said(401), httpx.Response(200, text="<html>"), said(nonsense=1)]


async def test_a_manager_that_is_away_is_waited_for(asking: Asking) -> None:
    answer = await asking(*UNUSABLE, said(allowed=True, limit_bytes=7)).insist(TASK)
    assert answer.limit_bytes == 7


@pytest.mark.parametrize("answer", UNUSABLE, ids=range(len(UNUSABLE)))
async def test_a_manager_that_stays_away_fails_the_import(
    asking: Asking, answer: httpx.Response | None
) -> None:
    with pytest.raises(Unavailable):
        await asking(answer).insist(TASK)


async def test_no_is_no(asking: Asking, settings: Settings) -> None:
    with pytest.raises(PermissionRevoked, match="you may only read"):
        await asking(said(allowed=False, reason="you may only read this folder")).insist(TASK)
    with pytest.raises(PermissionRevoked, match="does not know this import"):
        await asking(said(404)).insist(TASK)
    with pytest.raises(ImportCancelled):
        await asking(said(allowed=False, cancelled=True)).insist(TASK)
    settings.proxy.secret_file.write_text("newer\nfirst\n")
    await asking(said(allowed=True)).insist(TASK)
