"""Putting users out, and letting them in again."""

import asyncio
from uuid import uuid4

import pytest

from manager.auth import Caller, authenticate
from manager.models import User, UserRole, UserStatus
from manager.users import Users
from proxy_client.errors import Conflict, Forbidden, NotFound, Unauthenticated
from tests.manager.world import World

pytestmark = pytest.mark.anyio


async def status(world: World, user: Caller) -> UserStatus:
    async with world.database.read() as session:
        return (await session.get_one(User, user.user_id)).status


async def test_an_inactive_users_tokens_are_refused_until_the_user_is_active_again(world: World) -> None:
    users = Users(world.database)
    _id, token = await users.create_token(world.user_a, None, "laptop", None)
    header = f"Bearer {token}"
    await users.set_user_status(world.admin, world.user_a.user_id, UserStatus.INACTIVE)
    with pytest.raises(Unauthenticated):
        await authenticate(world.database, header, "r")
    await users.set_user_status(world.admin, world.user_a.user_id, UserStatus.ACTIVE)
    assert (await authenticate(world.database, header, "r")).user_id == world.user_a.user_id


async def test_a_change_is_in_the_audit_log_and_a_repeat_is_not(world: World) -> None:
    for _ in range(2):
        await Users(world.database).set_user_status(world.admin, world.user_a.user_id, UserStatus.INACTIVE)
    (entry,) = (await world.rows())["audit_log"]
    assert entry[2:6] == (
        world.admin.user_id,
        "user.set-status",
        str(world.user_a.user_id),
        {"email": "a@example.org", "status": "INACTIVE"},
    )


async def test_only_administrators_may(world: World) -> None:
    rows = await world.rows()
    for target in (world.user_a, world.user_b, world.admin):
        with pytest.raises(Forbidden):
            await Users(world.database).set_user_status(world.user_a, target.user_id, UserStatus.INACTIVE)
    assert await world.rows() == rows


async def test_an_unknown_user_is_not_found(world: World) -> None:
    with pytest.raises(NotFound) as caught:
        await Users(world.database).set_user_status(world.admin, uuid4(), UserStatus.INACTIVE)
    assert caught.value.field == "input.userId"


async def test_the_last_active_administrator_stays(world: World) -> None:
    users = Users(world.database)
    second = await world.user("second@example.org", UserRole.ADMIN)
    await users.set_user_status(second, second.user_id, UserStatus.INACTIVE)
    with pytest.raises(Conflict, match="last active administrator"):
        await users.set_user_status(world.admin, world.admin.user_id, UserStatus.INACTIVE)
    assert await status(world, world.admin) is UserStatus.ACTIVE


async def test_two_administrators_cannot_put_out_each_other_at_once(world: World) -> None:
    second = await world.user("second@example.org", UserRole.ADMIN)
    attempts = [
        Users(world.database).set_user_status(one, other.user_id, UserStatus.INACTIVE)
        for one, other in ((world.admin, second), (second, world.admin))
    ]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(isinstance(outcome, Conflict) for outcome in outcomes) == [False, True]
