"""What the door itself does, whatever is asked."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import orjson
import pytest

from manager.app import create_app
from manager.catalog import Catalog
from manager.graphql import limits
from tests.graphql.served import Json, Manager

pytestmark = pytest.mark.anyio


async def send(manager: Manager, content: bytes | Json, **headers: str) -> httpx.Response:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    defaults = {"Authorization": f"Bearer {manager.admin.token}", "Content-Type": "application/json"}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await manager.http.post("/graphql", content=body, headers=defaults | named)


def code(response: httpx.Response) -> str:
    errors = response.json()["errors"]
    assert len(errors) == 1
    return str(errors[0]["extensions"]["code"])


async def test_without_a_valid_token_nothing_is_answered(manager: Manager) -> None:
    for header in ("", "Bearer ", "Bearer stw_wrong", f"Basic {manager.admin.token}"):
        response = await send(manager, {"query": "{ __typename }"}, Authorization=header)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert code(response) == "UNAUTHENTICATED"


async def test_a_body_that_is_no_operation_is_400(manager: Manager) -> None:
    for body in (b"", b"{", b"[]", b'[{"query": "{ __typename }"}]', b'"x"', b"{}", b'{"query": 5}', b"\xff"):
        response = await send(manager, body)
        assert (response.status_code, code(response)) == (400, "BAD_REQUEST"), body
    wrong_parts: list[Json] = [{"variables": []}, {"variables": "x"}, {"operationName": 5}]
    for wrong in wrong_parts:
        response = await send(manager, {"query": "{ __typename }", **wrong})
        assert (response.status_code, code(response)) == (400, "BAD_REQUEST"), wrong


async def test_only_json_is_read(manager: Manager) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        response = await send(manager, {"query": "{ __typename }"}, Content_Type=kind)
        assert (response.status_code, code(response)) == (400, "BAD_REQUEST"), kind


async def test_a_long_body_is_not_read_to_its_end(manager: Manager) -> None:
    response = await send(manager, {"query": "#" * limits.MAX_BODY_BYTES})
    assert (response.status_code, code(response)) == (413, "BAD_REQUEST")


async def test_get_is_no_operation(manager: Manager) -> None:
    headers = {"Authorization": f"Bearer {manager.admin.token}"}
    response = await manager.http.get("/graphql?query={__typename}", headers=headers)
    assert response.status_code == 405
    assert response.json()["code"] == "BAD_REQUEST"


PORTAL = "https://portal.example.org"


@asynccontextmanager
async def allowing(manager: Manager, *origins: str) -> AsyncIterator[httpx.AsyncClient]:
    section = manager.settings.manager.model_copy(update={"allowed_origins": list(origins)})
    app = create_app(
        manager.settings.model_copy(update={"manager": section}),
        proxy_transports={"local": manager.proxy.transport},
    )
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://manager") as http,
    ):
        yield http


async def test_a_browser_lets_only_pages_of_listed_origins_ask(manager: Manager) -> None:
    wish = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-request-id",
    }
    granted = "Access-Control-Allow-Origin"
    async with allowing(manager, PORTAL) as http:
        for origin, expected in ((PORTAL, PORTAL), ("https://evil.example.org", None), ("null", None)):
            before = await http.options("/graphql", headers=wish | {"Origin": origin})
            assert before.headers.get(granted) == expected
            assert "Access-Control-Allow-Credentials" not in before.headers
            headers = {"Authorization": f"Bearer {manager.admin.token}", "Origin": origin}
            answer = await http.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
            assert answer.headers.get(granted) == expected
            assert "Origin" in answer.headers["Vary"]
        # A page may read what went wrong without a token, too, and in an answer that nobody foresaw.
        refused = await http.post("/graphql", json={}, headers={"Origin": PORTAL})
        assert (refused.status_code, refused.headers[granted]) == (401, PORTAL)
    preflight = await manager.http.options("/graphql", headers=wish | {"Origin": PORTAL})
    assert granted not in preflight.headers, "by default, to none"


async def test_an_unknown_path_is_not_found(manager: Manager) -> None:
    response = await manager.http.get("/nothing")
    assert (response.status_code, response.json()["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("{ me {", "GRAPHQL_PARSE_FAILED"),
        ("#", "GRAPHQL_PARSE_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ artifact { id } }", "GRAPHQL_VALIDATION_FAILED"),
        ('{ artifacts(first: "x") { count } }', "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_what_cannot_be_understood_is_200_with_a_code(
    manager: Manager, query: str, expected: str
) -> None:
    body = await manager.post(query)
    assert body["data"] is None
    assert {error["extensions"]["code"] for error in body["errors"]} == {expected}


async def test_a_wrong_variable_has_a_code(manager: Manager) -> None:
    query = "query($id: ID!, $filter: ArtifactRevisionFilter) { artifact(id: $id) { id } artifactRevisions(filter: $filter) { count } }"
    wrong: list[tuple[Json, str]] = [
        ({}, "id"),
        ({"id": None}, "id"),
        ({"id": {}}, "id"),
        ({"id": "x", "filter": {"artifactId": {"equals": "no uuid"}}}, "filter.artifactId.equals"),
        ({"id": "x", "filter": {"unknown": 1}}, "filter"),
    ]
    for variables, field in wrong:
        error = await manager.refusal(query, variables)
        assert error["extensions"] == {"code": "BAD_REQUEST", "field": field}, variables


async def test_a_time_that_no_calendar_has_is_a_wrong_variable(manager: Manager) -> None:
    query = 'mutation($at: DateTime) { createToken(input: {name: "t", expiresAt: $at}) { id } }'
    for at in ("9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "2026-02-30", "now", "", 5, []):
        error = await manager.refusal(query, {"at": at})
        assert error["extensions"]["code"] == "BAD_REQUEST", (at, error)


async def test_an_operation_is_chosen_by_its_name(manager: Manager) -> None:
    query = "query A { me { email } } query B { me { role } }"
    chosen = await send(manager, {"query": query, "operationName": "B"})
    assert chosen.json() == {"data": {"me": {"role": "ADMIN"}}}
    unknown = await send(manager, {"query": query, "operationName": "C"})
    assert (unknown.status_code, code(unknown)) == (200, "BAD_REQUEST")


async def test_the_request_id_of_the_caller_is_kept_when_it_fits(manager: Manager) -> None:
    kept = await send(manager, {"query": "{ __typename }"}, X_Request_Id="job-17:a.b_c")
    assert kept.headers["X-Request-Id"] == "job-17:a.b_c"
    for wrong in ("", "two words", "x" * 129, "a/b"):
        response = await send(manager, {"query": "{ __typename }"}, X_Request_Id=wrong)
        assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-Id"])


async def test_a_fault_inside_shows_the_request_id_and_nothing_else(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_arguments: Any, **_options: Any) -> None:
        raise RuntimeError("/var/lib/secret is gone")

    monkeypatch.setattr(Catalog, "scan_models", broken)
    query = (
        'mutation { scanArtifactModels(input: {models: [{modelId: "o/n"}]}) { artifactRevision { count } } }'
    )
    response = await send(manager, {"query": query}, X_Request_Id="request-1")
    (error,) = response.json()["errors"]
    assert error["message"] == "internal error, request id request-1"
    assert error["extensions"] == {"code": "INTERNAL"}
    assert "secret" not in response.text
    logged = capsys.readouterr().out
    assert "secret is gone" in logged
    assert "request-1" in logged


async def test_a_fault_before_the_schema_is_500_with_the_request_id(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("manager.graphql.endpoint.authenticate", broken)
    response = await send(manager, {"query": "{ __typename }"}, X_Request_Id="request-2")
    assert response.status_code == 500
    assert response.headers["X-Request-Id"] == "request-2"
    assert response.json()["message"] == "internal error, request id request-2"
    assert response.json()["code"] == "INTERNAL"


async def test_deep_variables_are_refused(manager: Manager) -> None:
    for levels in (40, 500):
        nested = '{"NOT": [' * levels + "]}" * levels
        query = "query($f: ArtifactFilter) { artifacts(filter: $f) { count } }"
        response = await send(manager, f'{{"query": "{query}", "variables": {{"f": {nested}}}}}'.encode())
        assert (response.status_code, code(response)) == (400, "BAD_REQUEST")


async def test_introspection_fits_the_limits(manager: Manager) -> None:
    from graphql import get_introspection_query  # noqa: PLC0415 -- only here

    data = await manager.ask(get_introspection_query())
    assert data["__schema"]["queryType"]["name"] == "Query"
