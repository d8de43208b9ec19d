"""Users, tokens, and what a token opens."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from manager.auth import Caller, authenticate
from manager.models import UserRole
from manager.users import Users
from proxy_client import errors
from tests.manager.world import World

pytestmark = pytest.mark.anyio

SOON = datetime.now(UTC) + timedelta(hours=1)


async def entered(world: World, token: str, request_id: str = "r-1") -> Caller:
    return await authenticate(world.database, f"Bearer {token}", request_id)


async def test_a_token_opens_the_door_for_its_user(world: World) -> None:
    _, token = await Users(world.database).create_token(world.user_a, None, "laptop", SOON)
    caller = await entered(world, token)
    assert (caller.user_id, caller.role, caller.request_id) == (world.user_a.user_id, UserRole.USER, "r-1")
    assert not caller.is_admin


async def test_only_a_hash_of_the_token_is_kept(world: World) -> None:
    _, token = await Users(world.database).create_token(world.user_a, None, "laptop", None)
    assert token.startswith("stw_")
    assert token not in str(await world.rows())


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE api_tokens SET expires_at = now() - interval '1 second'",
        "UPDATE api_tokens SET revoked_at = now()",
        "UPDATE users SET status = 'INACTIVE'",
        "DELETE FROM api_tokens",
    ],
)
async def test_a_token_that_ended_is_refused(world: World, change: str) -> None:
    _, token = await Users(world.database).create_token(world.user_a, None, "laptop", SOON)
    await entered(world, token)
    await world.execute(change)
    with pytest.raises(errors.Unauthenticated):
        await entered(world, token)


async def test_a_header_without_a_token_is_refused(world: World) -> None:
    for header in (None, "", "Bearer", "Bearer ", "Basic stw_x", "stw_x", "Bearer stw_\u00e9"):
        with pytest.raises(errors.Unauthenticated):
            await authenticate(world.database, header, "r")


async def test_a_request_id_that_does_not_fit_the_wire_is_replaced(world: World) -> None:
    _, token = await Users(world.database).create_token(world.user_a, None, "laptop", None)
    for unfit in ("", "x" * 129, "a b", "a\nb"):
        assert (await entered(world, token, unfit)).request_id.isalnum()


async def test_administrators_make_users_and_tokens_for_them(world: World) -> None:
    users = Users(world.database)
    user = await users.create_user(world.admin, "New@Example.org", UserRole.USER)
    assert user.email == "new@example.org"
    _, token = await users.create_token(world.admin, user.id, "first", None)
    assert (await entered(world, token)).user_id == user.id
    actions = [str(row) for row in (await world.rows())["audit_log"]]
    assert {"user.create", "token.create"} <= {word for row in actions for word in row.split("'")}
    assert token not in str(actions)


async def test_others_do_not(world: World) -> None:
    users = Users(world.database)
    token_id, _ = await users.create_token(world.admin, None, "admin's", None)
    before = await world.rows()
    with pytest.raises(errors.Forbidden):
        await users.create_user(world.user_a, "x@example.org", UserRole.ADMIN)
    with pytest.raises(errors.Forbidden):
        await users.create_token(world.user_a, world.admin.user_id, "mine now", None)
    with pytest.raises(errors.NotFound):
        await users.revoke_token(world.user_a, token_id)
    assert await world.rows() == before


async def test_an_address_that_is_none_is_refused(world: World) -> None:
    for email in ("", "a", "a@", "@b", "a b@c", "a@b\n", "a@b@c"):
        with pytest.raises(errors.BadRequest) as refusal:
            await Users(world.database).create_user(world.admin, email, UserRole.USER)
        assert refusal.value.field == "input.email"


async def test_an_address_is_given_once_in_any_case(world: World) -> None:
    with pytest.raises(errors.Conflict) as refusal:
        await Users(world.database).create_user(world.admin, "A@EXAMPLE.org", UserRole.USER)
    assert refusal.value.field == "input.email"


@pytest.mark.parametrize(
    ("name", "expires_at", "field"),
    [
        ("", None, "input.name"),
        ("x" * 256, None, "input.name"),
        ("a\nb", None, "input.name"),
        ("x", datetime(2020, 1, 1, tzinfo=UTC), "input.expiresAt"),
        ("x", datetime(2020, 1, 1), "input.expiresAt"),  # noqa: DTZ001 -- a time without zone is what is tested
    ],
)
async def test_a_bad_token_request_is_refused(
    world: World, name: str, expires_at: datetime | None, field: str
) -> None:
    with pytest.raises(errors.BadRequest) as refusal:
        await Users(world.database).create_token(world.user_a, None, name, expires_at)
    assert refusal.value.field == field


async def test_a_revoked_token_is_refused_and_revoking_may_be_repeated(world: World) -> None:
    users = Users(world.database)
    token_id, token = await users.create_token(world.user_a, None, "laptop", None)
    assert await users.revoke_token(world.user_a, token_id) == token_id
    assert await users.revoke_token(world.admin, token_id) == token_id
    with pytest.raises(errors.Unauthenticated):
        await entered(world, token)


async def test_the_first_administrator_is_made_once_by_any_number_of_managers(world: World) -> None:
    users = Users(world.database)
    await asyncio.gather(*(users.ensure_admin("admin@localhost", "from-the-file") for _ in range(5)))
    assert (await entered(world, "from-the-file")).is_admin
    token_id = (await world.rows())["api_tokens"][0][0]
    await users.revoke_token(world.admin, token_id)
    await users.ensure_admin("admin@localhost", "from-the-file")
    with pytest.raises(errors.Unauthenticated):
        await entered(world, "from-the-file")
