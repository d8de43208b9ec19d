"""The page for browsers at GET /graphql, as HTTP shows it."""

import re
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from manager.app import create_app
from manager.webui import pages
from tests.graphql.served import Manager

pytestmark = pytest.mark.anyio

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
WEBUI = Path(pages.__file__).parent


async def files_of(manager: Manager) -> list[str]:
    page = (await manager.http.get("/graphql", headers=BROWSER)).text
    return re.findall(r'(?:src|href)="([^"]+)"', page)


async def test_a_browser_gets_the_page_under_a_strict_policy(manager: Manager) -> None:
    response = await manager.http.get("/graphql", headers=BROWSER)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data:",
        "font-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert "<script>" not in response.text


async def test_a_page_that_did_not_change_is_not_sent_again(manager: Manager) -> None:
    first = await manager.http.get("/graphql", headers=BROWSER)
    assert first.headers["Cache-Control"] == "no-cache"
    again = await manager.http.get("/graphql", headers=BROWSER | {"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = await manager.http.get("/graphql", headers=BROWSER | {"If-None-Match": '"other"'})
    assert other.status_code == 200


async def test_its_files_are_here_and_last(manager: Manager) -> None:
    files = await files_of(manager)
    assert len(files) == 3
    for name in files:
        response = await manager.http.get(f"/{name}")
        assert response.status_code == 200, name
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        hashed = re.search(r"/page-\w+\.(js|css)$", name)
        assert ("immutable" in response.headers["Cache-Control"]) is bool(hashed)
        if hashed:
            assert response.headers["Content-Encoding"] == "gzip"


async def test_nothing_else_of_the_package_is_served(manager: Manager) -> None:
    for path in (
        "../../pages.py",
        "%2e%2e/%2e%2e/pages.py",
        "..%2f..%2fpages.py",
        "page.jsx",
        "",
        "/etc/passwd",
    ):
        response = await manager.http.get(f"/static/graphiql/{path}")
        assert response.status_code == 404, path


async def test_who_is_no_browser_is_told_to_post(manager: Manager) -> None:
    for accept in ("*/*", "application/json", "", "text/plain"):
        response = await manager.http.get("/graphql", headers={"Accept": accept})
        assert (response.status_code, response.headers["Allow"]) == (405, "POST"), accept
        assert response.json()["code"] == "BAD_REQUEST"


async def test_a_setting_turns_it_off(manager: Manager) -> None:
    (asset, *_) = [name for name in await files_of(manager) if name.endswith(".js")]
    section = manager.settings.manager.model_copy(update={"graphiql": False})
    app = create_app(manager.settings.model_copy(update={"manager": section}))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://manager") as http:
        assert (await http.get("/graphql", headers=BROWSER)).status_code == 405
        assert (await http.get(f"/{asset}")).status_code == 404


def test_what_is_served_was_built_from_the_source_that_is_here() -> None:
    lines = (WEBUI / "static/graphiql/SOURCE.sha256").read_text().splitlines()
    built_from = {name: digest for digest, name in (line.split("  ") for line in lines)}
    source = {
        path.name: sha256(path.read_bytes()).hexdigest()
        for path in (WEBUI / "graphiql").iterdir()
        if path.is_file() and path.name not in {"build.sh", ".gitignore"}
    }
    assert source == built_from, "run manager/webui/graphiql/build.sh and commit what it writes"


def test_no_file_names_a_place_to_fetch_code_from() -> None:
    built = "".join(path.read_text() for path in (WEBUI / "static/graphiql").glob("page-*"))
    assert not re.search(r"unpkg\.com|jsdelivr|esm\.sh|cdnjs|googleapis", built)
