"""Sharing folders: who may, what each step gives or takes, and what a race leaves."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from manager.access import visible_invitations, visible_shares, visible_vfolders
from manager.auth import Caller
from manager.models import (
    Project,
    ProjectMember,
    UserRole,
    VFolder,
    VFolderGrant,
    VFolderInvitation,
    VFolderPermission,
    VFolderStatus,
)
from manager.projects import Projects
from manager.sharing import Sharing
from proxy_client import errors
from proxy_client.errors import StowageError
from tests.manager.test_access import allowed, imported
from tests.manager.world import World

pytestmark = pytest.mark.anyio

READ_ONLY, READ_WRITE, RW_DELETE = VFolderPermission


def sharing(world: World) -> Sharing:
    return Sharing(world.database)


async def invited(
    world: World,
    permission: VFolderPermission = READ_WRITE,
    *,
    by: Caller | None = None,
    folder: UUID | None = None,
    email: str = "b@example.org",
) -> UUID:
    by, folder = by or world.user_a, folder or world.folder
    return (await sharing(world).invite(by, folder, email, permission)).id


async def has(world: World, caller: Caller, folder: UUID | None = None) -> VFolderPermission | None:
    wanted = visible_vfolders(caller).where(VFolder.id == (folder or world.folder))
    async with world.database.read() as session:
        row = (await session.execute(wanted)).one_or_none()
    return None if row is None else row[1]


async def states(world: World) -> list[str]:
    async with world.database.read() as session:
        found = await session.scalars(select(VFolderInvitation).order_by(VFolderInvitation.created_at))
    return [each.state.value for each in found]


async def actions(world: World) -> list[str]:
    rows = sorted((await world.rows())["audit_log"], key=lambda row: row[1])
    return [row[3] for row in rows]


# What each step gives or takes.


async def test_one_connection_takes_many_invitations(world: World) -> None:
    # PostgreSQL plans a statement for all values after it was asked five times.
    for number in range(12):
        await invited(world, email=f"guest{number}@example.org")
    with pytest.raises(errors.Conflict):
        await invited(world, email="guest0@example.org")
    assert await states(world) == ["PENDING"] * 12


@pytest.mark.parametrize("permission", VFolderPermission)
async def test_an_invitation_gives_its_permission_once_it_is_accepted(
    world: World, permission: VFolderPermission
) -> None:
    invitation = await invited(world, permission, email="B@example.org")
    assert await has(world, world.user_b) is None
    accepted = await sharing(world).accept(world.user_b, invitation)
    assert (accepted.email, await has(world, world.user_b)) == ("b@example.org", permission)
    assert await states(world) == ["ACCEPTED"]
    assert await actions(world) == ["vfolder.invite", "vfolder.accept"]


async def test_a_rejected_invitation_gives_nothing_and_another_may_follow(world: World) -> None:
    invitation = await invited(world)
    await sharing(world).reject(world.user_b, invitation)
    assert await has(world, world.user_b) is None
    with pytest.raises(errors.NotFound):
        await sharing(world).accept(world.user_b, invitation)
    await sharing(world).accept(world.user_b, await invited(world))
    assert (await states(world), await has(world, world.user_b)) == (["REJECTED", "ACCEPTED"], READ_WRITE)


async def test_a_folder_is_taken_back_before_and_after_the_answer(world: World) -> None:
    first = await invited(world)
    await sharing(world).revoke(world.user_a, world.folder, "B@example.org")
    with pytest.raises(errors.NotFound):
        await sharing(world).accept(world.user_b, first)
    await sharing(world).accept(world.user_b, await invited(world))
    await sharing(world).revoke(world.user_a, world.folder, "b@example.org")
    assert (await states(world), await has(world, world.user_b)) == (["REVOKED", "REVOKED"], None)
    with pytest.raises(errors.NotFound) as refusal:
        await sharing(world).revoke(world.user_a, world.folder, "b@example.org")
    assert refusal.value.field == "input.email"


async def test_a_guest_leaves(world: World) -> None:
    await sharing(world).accept(world.user_b, await invited(world))
    await sharing(world).leave(world.user_b, world.folder)
    assert (await states(world), await has(world, world.user_b)) == (["LEFT"], None)
    for caller, code in ((world.user_b, "NOT_FOUND"), (world.user_a, "CONFLICT"), (world.admin, "CONFLICT")):
        with pytest.raises(StowageError) as refusal:
            await sharing(world).leave(caller, world.folder)
        assert (refusal.value.code, refusal.value.field) == (code, "input.vfolderId")


async def test_a_permission_is_changed_of_those_who_have_one(world: World) -> None:
    with pytest.raises(errors.NotFound) as refusal:
        await sharing(world).set_permission(world.user_a, world.folder, world.user_b.user_id, READ_ONLY)
    assert refusal.value.field == "input.userId"
    await sharing(world).accept(world.user_b, await invited(world))
    await sharing(world).set_permission(world.user_a, world.folder, world.user_b.user_id, READ_ONLY)
    assert await has(world, world.user_b) is READ_ONLY


async def test_an_import_of_a_guest_is_not_allowed_any_more_once_the_folder_is_taken_back(
    world: World,
) -> None:
    await sharing(world).accept(world.user_b, await invited(world))
    task = await imported(world, world.user_b, world.folder)
    assert await allowed(world, task)
    await sharing(world).revoke(world.user_a, world.folder, "b@example.org")
    assert not await allowed(world, task)


async def test_an_invitation_waits_for_a_user_who_is_not_there_yet(world: World) -> None:
    invitation = await invited(world, email="new@example.org")
    newcomer = await world.user("new@example.org")
    await sharing(world).accept(newcomer, invitation)
    assert await has(world, newcomer) is READ_WRITE


# Projects.


async def project_folder(world: World) -> tuple[UUID, UUID]:
    project = Project(id=uuid4(), name="lab")
    await world.add(project)
    for member in (world.user_a, world.user_b):
        await world.add(ProjectMember(project_id=project.id, user_id=member.user_id))
    return project.id, await world.make_folder(None, "shared", project_id=project.id)


async def test_a_members_own_permission_takes_the_place_of_the_projects(world: World) -> None:
    project, folder = await project_folder(world)
    assert await has(world, world.user_b, folder) is READ_WRITE
    for permission in (READ_ONLY, RW_DELETE):
        await sharing(world).set_permission(world.admin, folder, world.user_b.user_id, permission)
        assert await has(world, world.user_b, folder) is permission
    await Projects(world.database).remove_member(world.admin, project, world.user_b.user_id)
    assert await has(world, world.user_b, folder) is None


async def test_of_a_projects_members_those_share_whose_own_permission_is_rw_delete(world: World) -> None:
    _project, folder = await project_folder(world)
    with pytest.raises(errors.Forbidden):
        await invited(world, by=world.user_a, folder=folder, email="x@example.org")
    await sharing(world).set_permission(world.admin, folder, world.user_a.user_id, RW_DELETE)
    await invited(world, by=world.user_a, folder=folder, email="x@example.org")


async def test_a_guest_of_a_projects_folder_loses_it_with_the_membership(world: World) -> None:
    project, folder = await project_folder(world)
    await sharing(world).accept(world.user_b, await invited(world, by=world.admin, folder=folder))
    await Projects(world.database).remove_member(world.admin, project, world.user_b.user_id)
    assert (await has(world, world.user_b, folder), await states(world)) == (None, ["REVOKED"])


# What is refused.


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"folder": uuid4()}, "NOT_FOUND", "input.vfolderId"),
        ({"by": "user_b"}, "NOT_FOUND", "input.vfolderId"),
        ({"by": "guest"}, "FORBIDDEN", "input.vfolderId"),
        ({"email": "no address"}, "BAD_REQUEST", "input.email"),
        ({"email": "a@example.org"}, "CONFLICT", "input.email"),  # the owner
        ({"email": "guest@example.org"}, "CONFLICT", "input.email"),  # has it already
        ({"email": "asked@example.org"}, "CONFLICT", "input.email"),  # was invited already
        ({"status": "DELETE_PENDING"}, "CONFLICT", "input.vfolderId"),
    ],
)
async def test_a_refused_invitation_changes_nothing(
    world: World, change: dict[str, Any], code: str, field: str
) -> None:
    guest = await world.user("guest@example.org")
    await sharing(world).accept(guest, await invited(world, RW_DELETE, email="guest@example.org"))
    await invited(world, email="asked@example.org")
    callers = {"user_b": world.user_b, "guest": guest, None: world.user_a}
    if status := change.pop("status", None):
        await world.execute("UPDATE vfolders SET status = :status", status=status)
    before = await world.rows()
    by = callers[change.pop("by", None)]
    with pytest.raises(StowageError) as refusal:
        await invited(world, by=by, **change)
    assert (refusal.value.code, refusal.value.field) == (code, field)
    assert await world.rows() == before


async def test_the_answer_does_not_tell_whether_there_is_such_a_user(world: World) -> None:
    for email in ("b@example.org", "nobody@example.org"):
        invitation = await sharing(world).invite(world.user_a, world.folder, email, READ_ONLY)
        assert (invitation.email, invitation.state.value) == (email, "PENDING")


async def test_only_whom_it_is_for_answers_an_invitation(world: World) -> None:
    invitation = await invited(world)
    before = await world.rows()
    for caller in (world.user_a, world.admin, await world.user("x@example.org")):
        for answer in (sharing(world).accept, sharing(world).reject):
            with pytest.raises(errors.NotFound) as refusal:
                await answer(caller, invitation)
            assert refusal.value.field == "input.id"
    assert (await world.rows())["vfolder_invitations"] == before["vfolder_invitations"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("UPDATE users SET status = 'INACTIVE' WHERE email = 'second@example.org'", "CONFLICT"),
        ("UPDATE users SET role = 'USER' WHERE email = 'second@example.org'", "CONFLICT"),
        ("UPDATE vfolders SET status = 'DELETE_ONGOING'", "NOT_FOUND"),
    ],
)
async def test_an_invitation_whose_sender_or_folder_is_gone_gives_nothing(
    world: World, change: str, code: str
) -> None:
    second = await world.user("second@example.org", UserRole.ADMIN)
    invitation = await invited(world, by=second)
    await world.execute(change)
    with pytest.raises(StowageError) as refusal:
        await sharing(world).accept(world.user_b, invitation)
    assert (refusal.value.code, refusal.value.field) == (code, "input.id")
    assert (await world.rows())["vfolder_permissions"] == []


async def test_whoever_is_invited_and_whoever_shares_see_the_invitation_and_nobody_else(world: World) -> None:
    await invited(world)
    stranger = await world.user("x@example.org")

    async def seen(caller: Caller) -> int:
        async with world.database.read() as session:
            return len((await session.scalars(visible_invitations(caller))).all())

    callers = (world.user_a, world.user_b, world.admin, stranger)
    assert [await seen(caller) for caller in callers] == [1, 1, 1, 0]
    await world.execute("UPDATE vfolders SET status = :status", status=VFolderStatus.DELETE_PENDING.value)
    assert [await seen(caller) for caller in callers] == [0, 0, 0, 0]


async def test_guests_see_themselves_among_those_who_use_a_folder(world: World) -> None:
    guest = await world.user("guest@example.org")
    for caller in (world.user_b, guest):
        await world.add(VFolderGrant(vfolder_id=world.folder, user_id=caller.user_id, permission=READ_ONLY))

    async def seen(caller: Caller) -> set[str]:
        async with world.database.read() as session:
            return {row[0].email for row in await session.execute(visible_shares(caller, world.folder))}

    everybody = {"b@example.org", "guest@example.org"}
    assert (await seen(world.user_a), await seen(world.admin)) == (everybody, everybody)
    assert await seen(guest) == {"guest@example.org"}
    assert await seen(await world.user("x@example.org")) == set()


# Races.


async def test_an_acceptance_and_its_revocation_at_once_leave_no_permission(world: World) -> None:
    for number in range(8):
        invitation = await invited(world)
        acts = [
            sharing(world).accept(world.user_b, invitation),
            sharing(world).revoke(world.user_a, world.folder, "b@example.org"),
        ]
        await asyncio.gather(*(acts if number % 2 else reversed(acts)), return_exceptions=True)
        assert await has(world, world.user_b) is None
        assert set(await states(world)) == {"REVOKED"}


async def test_invited_twice_at_once_one_invitation_waits(world: World) -> None:
    answers = await asyncio.gather(*(invited(world) for _ in range(5)), return_exceptions=True)
    assert sorted(isinstance(answer, errors.Conflict) for answer in answers) == [False, *[True] * 4]
    assert await states(world) == ["PENDING"]
