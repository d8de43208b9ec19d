"""The Model Store page, as HTTP shows it; `tests/test_page.py` looks at what it was built from."""

import re
from pathlib import Path

import pytest

from manager.webui import pages
from tests.graphql.served import Manager

WEBUI = Path(pages.__file__).parent
BUILT = WEBUI / "static/app"
KEY = "7d1f2c7e-3a52-4f3c-9a39-1d9f0f6d5a11"
VIEWS = (
    "/",
    "/models/" + KEY,
    "/tasks",
    "/tasks/" + KEY,
    "/folders",
    "/folders/" + KEY,
    "/sign-in?next=%2Ftasks",
)


def files_of(page: str) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', page)


@pytest.mark.anyio
async def test_every_view_is_the_page_under_a_strict_policy(manager: Manager) -> None:
    told = {(await manager.http.get(view)).content for view in VIEWS}
    assert told == {(BUILT / "index.html").read_bytes()}
    response = await manager.http.get("/")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert response.headers["Cache-Control"] == "no-cache"
    policy = dict(part.split(" ", 1) for part in response.headers["Content-Security-Policy"].split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "font-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
    }
    again = await manager.http.get("/tasks", headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("/models", "/models/a/b", "/folders/", "/elsewhere"):
        assert (await manager.http.get(path)).status_code in {307, 404}, path


@pytest.mark.anyio
async def test_its_files_are_here_and_those_with_a_hash_last(manager: Manager) -> None:
    named = files_of((BUILT / "index.html").read_text())
    assert len([name for name in named if name.startswith("/app/assets/")]) >= 2
    kinds = {".js": "javascript", ".css": "text/css", ".woff2": "font/woff2", ".svg": "image/svg+xml"}
    assets = [f"/app/assets/{path.name}" for path in (BUILT / "assets").iterdir()]
    for name in {*named, *assets}:
        response = await manager.http.get(name)
        assert response.status_code == 200, name
        assert kinds[Path(name).suffix] in response.headers["Content-Type"]
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert ("immutable" in response.headers["Cache-Control"]) is name.startswith("/app/assets/")
        if Path(name).suffix in {".js", ".css"} and len(response.content) > 1000:
            assert response.headers["Content-Encoding"] == "gzip"
    for path in (
        "../pages.py",
        "%2e%2e/%2e%2e/pages.py",
        "..%2f..%2fpages.py",
        "",
        "assets/",
        "assets/none.js",
    ):
        assert (await manager.http.get(f"/app/{path}")).status_code == 404, path
