"""Users, tokens, and what a token opens."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from manager.access import ARTIFACT_IMPORT, may_import_to_artifact_storage
from manager.auth import Caller, authenticate
from manager.models import ApiToken, UserRole
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


# Replacing tokens, and their end.


async def row_of(world: World, token_id: UUID) -> ApiToken:
    async with world.database.read() as session:
        return await session.get_one(ApiToken, token_id)


async def test_a_rotated_token_is_refused_and_the_new_one_lives_as_long(world: World) -> None:
    users = Users(world.database)
    old_id, old = await users.create_token(world.user_a, None, "ci", SOON)
    new_id, new = await users.rotate_token(world.user_a, old_id, expires_at=None, keep_until=None)
    assert (await entered(world, new)).user_id == world.user_a.user_id
    with pytest.raises(errors.Unauthenticated):
        await entered(world, old)
    before, after = await row_of(world, old_id), await row_of(world, new_id)
    assert (after.name, after.user_id) == ("ci", world.user_a.user_id)
    assert before.expires_at is not None
    assert after.expires_at is not None
    assert abs(after.expires_at - after.created_at - (before.expires_at - before.created_at)) < timedelta(
        seconds=1
    )


async def test_a_rotated_token_may_be_kept_for_a_while_but_never_longer_than_it_had(world: World) -> None:
    users = Users(world.database)
    for ends, until, kept in (
        (None, SOON, SOON),
        (SOON + timedelta(hours=1), SOON, SOON),
        (SOON, SOON + timedelta(days=1), SOON),
    ):
        old_id, old = await users.create_token(world.user_a, None, "ci", ends)
        _, new = await users.rotate_token(world.user_a, old_id, expires_at=None, keep_until=until)
        for token in (old, new):
            await entered(world, token)
        assert (await row_of(world, old_id)).expires_at == kept


async def test_a_token_ends_when_it_is_told_to(world: World) -> None:
    users = Users(world.database)
    token_id, _ = await users.create_token(world.user_a, None, "ci", None)
    assert (await users.set_token_expiry(world.admin, token_id, SOON)).expires_at == SOON
    assert (await users.set_token_expiry(world.user_a, token_id, None)).expires_at is None


async def test_a_token_that_ended_or_is_somebody_elses_is_not_replaced(world: World) -> None:
    users = Users(world.database)
    own, _ = await users.create_token(world.user_a, None, "own", None)
    revoked, _ = await users.create_token(world.user_b, None, "revoked", None)
    await users.revoke_token(world.user_b, revoked)
    expired, _ = await users.create_token(world.user_b, None, "expired", SOON)
    await world.execute(
        "UPDATE api_tokens SET expires_at = now() - interval '1 s' WHERE id = :id", id=expired
    )
    before = await world.rows()
    past = datetime(2020, 1, 1, tzinfo=UTC)
    for token_id, code in (
        (own, "NOT_FOUND"),
        (uuid4(), "NOT_FOUND"),
        (revoked, "CONFLICT"),
        (expired, "CONFLICT"),
    ):
        for asked in (
            users.rotate_token(world.user_b, token_id, expires_at=None, keep_until=None),
            users.set_token_expiry(world.user_b, token_id, SOON),
        ):
            with pytest.raises(errors.StowageError) as refusal:
                await asked
            assert (refusal.value.code, refusal.value.field) == (code, "input.id")
    for asked, field in (
        (users.rotate_token(world.user_a, own, expires_at=past, keep_until=None), "input.expiresAt"),
        (users.rotate_token(world.user_a, own, expires_at=None, keep_until=past), "input.keepUntil"),
        (users.set_token_expiry(world.user_a, own, past), "input.expiresAt"),
    ):
        with pytest.raises(errors.BadRequest) as refused:
            await asked
        assert refused.value.field == field
    assert await world.rows() == before


# Roles, and what is permitted beyond them.


async def test_a_role_holds_from_the_next_request_on_and_one_administrator_stays(world: World) -> None:
    users = Users(world.database)
    _, token = await users.create_token(world.user_a, None, "laptop", None)
    with pytest.raises(errors.Conflict, match="last active administrator"):
        await users.set_user_role(world.admin, world.admin.user_id, UserRole.USER)
    for _ in range(2):
        await users.set_user_role(world.admin, world.user_a.user_id, UserRole.ADMIN)
    promoted = await entered(world, token)
    assert promoted.is_admin
    await users.set_user_role(promoted, world.admin.user_id, UserRole.USER)
    actions = [row[3] for row in (await world.rows())["audit_log"] if row[3] == "user.set-role"]
    assert len(actions) == 2


async def test_two_administrators_cannot_take_each_others_role_at_once(world: World) -> None:
    second = await world.user("second@example.org", UserRole.ADMIN)
    attempts = [
        Users(world.database).set_user_role(one, other.user_id, UserRole.USER)
        for one, other in ((world.admin, second), (second, world.admin))
    ]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(isinstance(outcome, errors.Conflict) for outcome in outcomes) == [False, True]


async def test_a_user_is_permitted_to_fill_the_artifact_storage_and_no_more(world: World) -> None:
    users = Users(world.database)

    async def may() -> bool:
        async with world.database.read() as session:
            try:
                await may_import_to_artifact_storage(session, world.user_a)
            except errors.Forbidden:
                return False
        return True

    for _ in range(2):
        await users.grant(world.admin, world.user_a.user_id, ARTIFACT_IMPORT)
    assert await may()
    for _ in range(2):
        await users.revoke(world.admin, world.user_a.user_id, ARTIFACT_IMPORT)
    assert not await may()
    actions = [row[3] for row in sorted((await world.rows())["audit_log"], key=lambda row: row[1])]
    assert actions == ["user.grant", "user.revoke"]


async def test_roles_and_permissions_are_given_by_administrators_to_users_that_are_there(
    world: World,
) -> None:
    users = Users(world.database)
    before = await world.rows()
    for caller, user, code in (
        (world.user_a, world.user_a.user_id, "FORBIDDEN"),
        (world.admin, uuid4(), "NOT_FOUND"),
    ):
        for asked in (
            users.set_user_role(caller, user, UserRole.ADMIN),
            users.grant(caller, user, ARTIFACT_IMPORT),
            users.revoke(caller, user, ARTIFACT_IMPORT),
        ):
            with pytest.raises(errors.StowageError) as refusal:
                await asked
            assert refusal.value.code == code
    assert await world.rows() == before
