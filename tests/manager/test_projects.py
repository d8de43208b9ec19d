"""Projects, their members, and what may be done on hosts."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from manager.access import CREATE_VFOLDER, UPLOAD_FILE, host_allows, visible_projects
from manager.auth import Caller
from manager.hosts import Hosts
from manager.models import ProjectType, VFolder, VFolderUsageMode
from manager.projects import Projects
from manager.vfolders import VFolders
from proxy_client import errors
from proxy_client.errors import StowageError
from tests.manager.world import World

pytestmark = pytest.mark.anyio


def projects(world: World) -> Projects:
    return Projects(world.database)


async def lab(world: World, kind: ProjectType = ProjectType.GENERAL) -> UUID:
    project = await projects(world).create(world.admin, "lab", kind)
    await projects(world).add_member(world.admin, project.id, world.user_a.user_id)
    return project.id


async def make_folder(world: World, project_id: UUID) -> VFolder:
    return await VFolders(world.database, world.settings, world.proxies).create(
        world.user_a, name="shared", usage_mode=VFolderUsageMode.MODEL, host=None, project_id=project_id
    )


async def names(world: World, caller: Caller) -> list[str]:
    async with world.database.read() as session:
        return [each.name for each in await session.scalars(visible_projects(caller))]


async def test_a_project_is_seen_by_its_members_and_administrators(world: World) -> None:
    project = await lab(world)
    assert [await names(world, caller) for caller in (world.user_a, world.user_b, world.admin)] == [
        ["lab"],
        [],
        ["lab"],
    ]
    await make_folder(world, project)
    await projects(world).remove_member(world.admin, project, world.user_a.user_id)
    assert await names(world, world.user_a) == []
    with pytest.raises(errors.NotFound):
        await make_folder(world, project)


async def test_members_are_added_and_removed_any_number_of_times(world: World) -> None:
    project = await lab(world)
    for _ in range(2):
        await projects(world).add_member(world.admin, project, world.user_b.user_id)
    for _ in range(2):
        await projects(world).remove_member(world.admin, project, world.user_b.user_id)
    done = [row[3] for row in sorted((await world.rows())["audit_log"], key=lambda row: row[1])]
    assert done == ["project.create", "project.add-member", "project.add-member", "project.remove-member"]


async def test_a_project_that_owns_folders_is_not_deleted(world: World) -> None:
    project = await lab(world)
    folder = await make_folder(world, project)
    with pytest.raises(errors.Conflict, match="1 folder;") as refusal:
        await projects(world).delete(world.admin, project)
    assert refusal.value.field == "input.projectId"
    await world.execute("UPDATE vfolders SET status = 'DELETE_COMPLETE' WHERE id = :id", id=folder.id)
    await Hosts(world.database, world.proxies).grant(
        world.admin, "far:volume1", [UPLOAD_FILE], project_id=project
    )
    await projects(world).delete(world.admin, project)
    rows = await world.rows()
    assert rows["project_members"] == []
    assert [row for row in rows["host_permissions"] if project in row] == []
    assert await names(world, world.admin) == []
    # The name is free, and what was deleted is not there for anybody.
    again = await projects(world).create(world.admin, "lab", ProjectType.MODEL_STORE)
    assert again.id != project
    with pytest.raises(errors.NotFound):
        await projects(world).delete(world.admin, project)


async def test_a_folder_made_while_its_project_is_deleted_keeps_it_or_is_refused(world: World) -> None:
    for _ in range(5):
        project = await lab(world)
        made, deleted = await asyncio.gather(
            make_folder(world, project), projects(world).delete(world.admin, project), return_exceptions=True
        )
        assert isinstance(made, errors.NotFound) != isinstance(deleted, errors.Conflict)
        if isinstance(made, VFolder):
            await world.execute("UPDATE vfolders SET status = 'DELETE_COMPLETE' WHERE id = :id", id=made.id)
            await projects(world).delete(world.admin, project)


@pytest.mark.parametrize("name", ["", " ", " x", "x ", "a\nb", "a/b", "x" * 65, "a\0"])
async def test_a_name_that_is_none_is_refused(world: World, name: str) -> None:
    with pytest.raises(errors.BadRequest) as refusal:
        await projects(world).create(world.admin, name, ProjectType.GENERAL)
    assert refusal.value.field == "input.name"


async def test_what_is_refused_changes_nothing(world: World) -> None:
    project = await lab(world)
    before = await world.rows()
    service, user = projects(world), world.user_b.user_id
    refused: list[tuple[Any, str, str | None]] = [
        (service.create(world.admin, "lab", ProjectType.GENERAL), "CONFLICT", "input.name"),
        (service.create(world.user_a, "x", ProjectType.GENERAL), "FORBIDDEN", None),
        (service.delete(world.user_a, project), "FORBIDDEN", None),
        (service.delete(world.admin, uuid4()), "NOT_FOUND", "input.projectId"),
        (service.add_member(world.user_a, project, user), "FORBIDDEN", None),
        (service.add_member(world.admin, uuid4(), user), "NOT_FOUND", "input.projectId"),
        (service.add_member(world.admin, project, uuid4()), "NOT_FOUND", "input.userId"),
        (service.remove_member(world.user_a, project, world.user_a.user_id), "FORBIDDEN", None),
        (service.remove_member(world.admin, uuid4(), user), "NOT_FOUND", "input.projectId"),
    ]
    for asked, code, field in refused:
        with pytest.raises(StowageError) as refusal:
            await asked
        assert (refusal.value.code, refusal.value.field) == (code, field)
    assert await world.rows() == before


# Hosts.


async def may(world: World, caller: Caller, permission: str, host: str = "near:closed") -> bool:
    async with world.database.read() as session:
        return bool(await session.scalar(select(host_allows(caller, host, permission))))


async def test_permissions_on_a_host_are_given_and_taken(world: World) -> None:
    hosts, project = Hosts(world.database, world.proxies), await lab(world)
    whose: list[dict[str, Any]] = [{}, {"user_id": world.user_a.user_id}, {"project_id": project}]
    for who in whose:
        assert not await may(world, world.user_a, UPLOAD_FILE)
        for _ in range(2):
            await hosts.grant(world.admin, "near:closed", [UPLOAD_FILE, CREATE_VFOLDER], **who)
        assert await may(world, world.user_a, UPLOAD_FILE)
        assert await may(world, world.user_b, UPLOAD_FILE) is (not who)
        for _ in range(2):
            left = await hosts.revoke(world.admin, "near:closed", [UPLOAD_FILE], **who)
        assert left.permissions == [CREATE_VFOLDER]
        assert not await may(world, world.user_a, UPLOAD_FILE)
    done = [row[3] for row in (await world.rows())["audit_log"] if row[3].startswith("host.")]
    assert sorted(done) == ["host.grant"] * 3 + ["host.revoke"] * 3


async def test_what_was_taken_from_everybody_leaves_a_row_so_that_no_start_gives_it_again(
    world: World,
) -> None:
    hosts = Hosts(world.database, world.proxies)
    everything = ["create-vfolder", "upload-file", "download-file", "delete-vfolder"]
    await hosts.revoke(world.admin, "near:volume1", everything)
    rows = [row for row in (await world.rows())["host_permissions"] if "near:volume1" in row]
    assert [row[-1] for row in rows] == [[]]


async def test_what_is_refused_on_hosts_changes_nothing(world: World) -> None:
    hosts, project = Hosts(world.database, world.proxies), await lab(world)
    before = await world.rows()
    user = world.user_a.user_id
    refused: list[tuple[Caller, dict[str, Any], str, str | None]] = [
        (world.user_a, {}, "FORBIDDEN", None),
        (world.admin, {"host": "nowhere:volume1"}, "BAD_REQUEST", "input.host"),
        (world.admin, {"host": "near"}, "BAD_REQUEST", "input.host"),
        (world.admin, {"permissions": []}, "BAD_REQUEST", "input.permissions"),
        (world.admin, {"user_id": user, "project_id": project}, "BAD_REQUEST", "input.projectId"),
        (world.admin, {"user_id": uuid4()}, "NOT_FOUND", "input.userId"),
        (world.admin, {"project_id": uuid4()}, "NOT_FOUND", "input.projectId"),
    ]
    for caller, change, code, field in refused:
        asked: dict[str, Any] = {"host": "near:volume1", "permissions": [UPLOAD_FILE]} | change
        for act in (hosts.grant, hosts.revoke):
            with pytest.raises(StowageError) as refusal:
                await act(
                    caller,
                    asked["host"],
                    asked["permissions"],
                    **{key: value for key, value in asked.items() if key.endswith("_id")},
                )
            assert (refusal.value.code, refusal.value.field) == (code, field)
    assert await world.rows() == before
