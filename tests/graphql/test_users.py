import base64
from uuid import UUID, uuid4

import pytest

from manager.graphql.ids import global_id
from manager.models import ApiToken, User
from tests.graphql.served import Json, Manager, Person

pytestmark = pytest.mark.anyio

ME = "{ me { id email role } }"
CREATE_USER = "mutation($input: CreateUserInput!) { createUser(input: $input) { user { id email role } } }"
CREATE_TOKEN = "mutation($input: CreateTokenInput!) { createToken(input: $input) { id token } }"
REVOKE = "mutation($id: ID!) { revokeToken(input: {id: $id}) { id } }"


async def status(manager: Manager, token: str) -> int:
    response = await manager.http.post(
        "/graphql", json={"query": ME}, headers={"Authorization": f"Bearer {token}"}
    )
    return response.status_code


async def test_me_is_the_tokens_user(manager: Manager) -> None:
    person = await manager.person()
    assert await manager.ask(ME, by=person) == {
        "me": {"id": global_id("User", person.id), "email": person.row.email, "role": "USER"}
    }
    decoded = base64.b64decode(global_id("User", person.id)).decode()
    assert decoded == f"User:{person.id}"


async def test_an_administrator_creates_a_user_and_a_token_for_them(manager: Manager) -> None:
    created = await manager.ask(CREATE_USER, {"input": {"email": "New@Example.org"}})
    user = created["createUser"]["user"]
    assert (user["email"], user["role"]) == ("new@example.org", "USER")
    made = await manager.ask(CREATE_TOKEN, {"input": {"userId": user["id"], "name": "laptop"}})
    row = User(id=UUID(base64.b64decode(user["id"]).decode().partition(":")[2]))
    assert (await manager.ask(ME, by=Person(row, made["createToken"]["token"])))["me"]["id"] == user["id"]


async def test_a_token_is_refused_once_it_is_revoked(manager: Manager) -> None:
    person = await manager.person()
    made = (await manager.ask(CREATE_TOKEN, {"input": {"name": "ci"}}, by=person))["createToken"]
    assert await status(manager, made["token"]) == 200
    assert await manager.ask(REVOKE, {"id": made["id"]}, by=person) == {"revokeToken": {"id": made["id"]}}
    assert await status(manager, made["token"]) == 401


async def test_a_token_with_an_end(manager: Manager) -> None:
    late = {"name": "x", "expiresAt": "2999-01-01T00:00:00Z"}
    assert (await manager.ask(CREATE_TOKEN, {"input": late}))["createToken"]["token"].startswith("stw_")
    error = await manager.refusal(CREATE_TOKEN, {"input": late | {"expiresAt": "2001-01-01T00:00:00"}})
    assert error["extensions"] == {"code": "BAD_REQUEST", "field": "input.expiresAt"}
    error = await manager.refusal(CREATE_TOKEN, {"input": late | {"expiresAt": "tomorrow"}})
    assert error["extensions"] == {"code": "BAD_REQUEST", "field": "input.expiresAt"}


async def test_what_is_refused_makes_no_row(manager: Manager) -> None:
    person, other = await manager.person(), await manager.person()
    users, tokens = await manager.rows(User), await manager.rows(ApiToken)
    refused: list[tuple[str, Json, str, str | None]] = [
        (CREATE_USER, {"input": {"email": "x@example.org"}}, "FORBIDDEN", None),
        (CREATE_TOKEN, {"input": {"name": ""}}, "BAD_REQUEST", "input.name"),
        (CREATE_TOKEN, {"input": {"name": "x", "userId": "x"}}, "BAD_REQUEST", "input.userId"),
        (CREATE_TOKEN, {"input": {"name": "x", "userId": str(other.id)}}, "FORBIDDEN", "input.userId"),
        (REVOKE, {"id": str(uuid4())}, "NOT_FOUND", "input.id"),
        (REVOKE, {"id": "x"}, "BAD_REQUEST", "input.id"),
    ]
    for query, variables, code, field in refused:
        error = await manager.refusal(query, variables, by=person)
        assert error["extensions"] == {"code": code} | ({"field": field} if field else {}), variables
    error = await manager.refusal(CREATE_USER, {"input": {"email": "no address"}})
    assert error["extensions"] == {"code": "BAD_REQUEST", "field": "input.email"}
    error = await manager.refusal(CREATE_USER, {"input": {"email": person.row.email}})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.email"}
    assert (await manager.rows(User), await manager.rows(ApiToken)) == (users, tokens)
