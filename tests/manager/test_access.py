"""Who sees and writes what, against an oracle that knows no SQL."""

import itertools
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from manager.access import authorize_import, visible_vfolders, writable_vfolder
from manager.auth import Caller
from manager.imports import ImportOptions
from manager.models import (
    HostPermission,
    Project,
    ProjectMember,
    ProjectType,
    UserGrant,
    VFolderGrant,
    VFolderPermission,
    VFolderStatus,
)
from proxy_client import errors
from proxy_client.errors import StowageError
from tests.manager.stand_in import SECRET
from tests.manager.world import World

pytestmark = pytest.mark.anyio

OWNERS = ("self", "other", "project", "foreign project", "store", "foreign store")
GRANTS = (None, "READ_ONLY", "READ_WRITE", "RW_DELETE")
STATUSES = ("READY", "MOUNTED", "PERFORMING", "ERROR", "DELETE_PENDING", "DELETE_COMPLETE")
HOSTS = ("near:volume1", "near:closed")


@dataclass(frozen=True)
class Case:
    owner: str
    grant: str | None
    status: str = "READY"
    host: str = "near:volume1"
    unmanaged: bool = False


CASES = [
    *(Case(owner, grant) for owner, grant in itertools.product(OWNERS, GRANTS)),
    *(
        Case(owner, grant, status, host, unmanaged)
        for owner, grant, status, host, unmanaged in itertools.product(
            ("self", "other"), (None, "READ_ONLY"), STATUSES, HOSTS, (False, True)
        )
    ),
]


def expected_permission(case: Case, *, admin: bool) -> str | None:
    if case.status == "DELETE_COMPLETE":
        return None
    if case.owner == "self":
        return "RW_DELETE"
    if case.grant:
        return case.grant
    if case.owner in {"project", "store"}:
        return "READ_WRITE"
    if case.owner == "foreign store":
        return "READ_WRITE" if admin else "READ_ONLY"
    return "READ_ONLY" if admin else None


def expected_refusal(case: Case, *, admin: bool) -> str | None:
    permission = expected_permission(case, admin=admin)
    if permission is None:
        return "NOT_FOUND"
    if permission == "READ_ONLY" or case.unmanaged or case.host == "near:closed":
        return "FORBIDDEN"
    return None if case.status in {"READY", "MOUNTED"} else "CONFLICT"


async def folders(world: World, caller: Caller) -> dict[UUID, Case]:
    projects = {
        name: Project(id=uuid4(), name=name, type=kind)
        for name, kind in {
            "project": ProjectType.GENERAL,
            "foreign project": ProjectType.GENERAL,
            "store": ProjectType.MODEL_STORE,
            "foreign store": ProjectType.MODEL_STORE,
        }.items()
    }
    await world.add(*projects.values())
    for name in ("project", "store"):
        await world.add(ProjectMember(project_id=projects[name].id, user_id=caller.user_id))
    made = {}
    for number, case in enumerate(CASES):
        folder = await world.make_folder(
            {"self": caller, "other": world.user_b}.get(case.owner),
            f"folder {number}",
            project_id=projects[case.owner].id if case.owner in projects else None,
            status=VFolderStatus(case.status),
            host=case.host,
            unmanaged_path="/elsewhere" if case.unmanaged else None,
        )
        made[folder] = case
        if case.grant:
            permission = VFolderPermission(case.grant)
            await world.add(VFolderGrant(vfolder_id=folder, user_id=caller.user_id, permission=permission))
    return made


@pytest.mark.parametrize("admin", [False, True])
async def test_the_effective_permission_is_the_oracles(world: World, admin: bool) -> None:
    caller = world.admin if admin else world.user_a
    made = await folders(world, caller)
    async with world.database.read() as session:
        seen = {
            folder.id: permission for folder, permission in await session.execute(visible_vfolders(caller))
        }
    assert all(isinstance(permission, VFolderPermission) for permission in seen.values())
    found = {case: seen.get(folder) for folder, case in made.items()}
    assert found == {case: expected_permission(case, admin=admin) for case in made.values()}


@pytest.mark.parametrize("admin", [False, True])
async def test_writing_is_refused_as_the_oracle_refuses(world: World, admin: bool) -> None:
    caller = world.admin if admin else world.user_a
    made = await folders(world, caller)
    found: dict[Case, str | None] = {}
    async with world.database.read() as session:
        for folder, case in made.items():
            try:
                proof = await writable_vfolder(session, caller, folder, field="here")
            except StowageError as refusal:
                found[case] = refusal.code if refusal.field == "here" else "no field"
            else:
                assert (proof.proxy, proof.volume) == ("near", "volume1")
                found[case] = None
    assert found == {case: expected_refusal(case, admin=admin) for case in made.values()}


@pytest.mark.parametrize(
    ("whose", "allowed"),
    [("everybody", True), ("user", True), ("other user", False), ("project", True), ("other project", False)],
)
async def test_a_host_permission_speaks_of_those_it_names(world: World, whose: str, allowed: bool) -> None:
    mine, other = (Project(id=uuid4(), name=name) for name in ("mine", "other"))
    await world.add(mine, other)
    await world.add(ProjectMember(project_id=mine.id, user_id=world.user_a.user_id))
    named = {
        "everybody": {},
        "user": {"user_id": world.user_a.user_id},
        "other user": {"user_id": world.user_b.user_id},
        "project": {"project_id": mine.id},
        "other project": {"project_id": other.id},
    }[whose]
    await world.add(HostPermission(host="near:closed", permissions=["upload-file"], **named))
    folder = await world.make_folder(world.user_a, "folder", host="near:closed")
    async with world.database.read() as session:
        if allowed:
            await writable_vfolder(session, world.user_a, folder)
        else:
            with pytest.raises(errors.Forbidden, match="upload-file"):
                await writable_vfolder(session, world.user_a, folder)


# What a proxy asks.


async def imported(world: World, caller: Caller, folder: UUID | None) -> UUID:
    (found,) = await world.service().import_revisions(caller, [world.revision], folder, ImportOptions())
    assert found.task is not None
    return found.task.id


async def allowed(world: World, task_id: UUID, proxy: str = "near") -> bool:
    header = f"Bearer {proxy}-{SECRET}"
    answer = await authorize_import(world.database, world.settings, task_id, header)
    assert answer.allowed or answer.reason
    return answer.allowed


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET status = 'INACTIVE'",
        "UPDATE vfolders SET status = 'DELETE_PENDING'",
        "UPDATE vfolder_permissions SET permission = 'READ_ONLY'",
        "DELETE FROM vfolder_permissions",
        "UPDATE host_permissions SET permissions = '{download-file}'",
        "UPDATE import_tasks SET cancel_requested_at = now()",
        "UPDATE import_tasks SET finished_at = now(), status = 'CANCELLED'",
    ],
)
async def test_what_was_revoked_meanwhile_is_not_allowed_any_more(world: World, change: str) -> None:
    grant = VFolderGrant(
        vfolder_id=world.folder, user_id=world.user_b.user_id, permission=VFolderPermission.READ_WRITE
    )
    await world.add(grant)
    task_id = await imported(world, world.user_b, world.folder)
    assert await allowed(world, task_id)
    await world.execute(change)
    assert not await allowed(world, task_id)


async def test_filling_the_artifact_storage_stays_a_matter_of_role_or_grant(world: World) -> None:
    await world.add(UserGrant(user_id=world.user_a.user_id, permission="artifact:import"))
    task_id = await imported(world, world.user_a, None)
    assert await allowed(world, task_id)
    await world.execute("DELETE FROM user_grants")
    assert not await allowed(world, task_id)
    await world.execute("UPDATE users SET role = 'ADMIN'")
    assert await allowed(world, task_id)


async def test_a_proxy_asks_about_its_own_imports_with_its_own_secret(world: World) -> None:
    task_id = await imported(world, world.user_a, world.folder)
    for other in (task_id, uuid4()):
        with pytest.raises(errors.NotFound):
            await allowed(world, other, "far")
    for header in (None, "", "Bearer", "Bearer wrong", f"Basic near-{SECRET}", f"Bearer near-{SECRET}x"):
        with pytest.raises(errors.Unauthenticated):
            await authorize_import(world.database, world.settings, task_id, header)


async def test_two_secrets_are_accepted_while_one_is_replaced(world: World) -> None:
    task_id = await imported(world, world.user_a, world.folder)
    file = world.settings.storage_proxies["near"].secret_file
    file.write_text(f"new\nnear-{SECRET}\n")
    assert await allowed(world, task_id)
    file.write_text("new\n")
    with pytest.raises(errors.Unauthenticated):
        await allowed(world, task_id)
