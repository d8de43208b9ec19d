"""Deleting vfolders, against a proxy that may be away, refuse, or be slow."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID, uuid4

import pytest

from manager.access import writable_vfolder
from manager.auth import Caller
from manager.imports import ImportOptions
from manager.models import (
    HostPermission,
    ImportTask,
    ImportTaskStatus,
    Project,
    ProjectMember,
    ProjectType,
    VFolder,
    VFolderGrant,
    VFolderPermission,
    VFolderStatus,
    VFolderUsageMode,
)
from manager.reconciler import Reconciler
from manager.vfolders import VFolders
from proxy_client import errors
from proxy_client.errors import Conflict, Forbidden, NotFound, StorageFailure, StowageError
from tests.manager.stand_in import until
from tests.manager.world import World

pytestmark = pytest.mark.anyio

DELETING = (VFolderStatus.DELETE_ONGOING, VFolderStatus.DELETE_PENDING, VFolderStatus.DELETE_ERROR)


@asynccontextmanager
async def reconciling(world: World) -> AsyncIterator[None]:
    running = asyncio.create_task(Reconciler(world.database, world.settings, world.proxies).run())
    yield
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


def vfolders(world: World) -> VFolders:
    return VFolders(world.database, world.settings, world.proxies)


async def on_disk(world: World, *vfolder_ids: UUID) -> list[str]:
    """Let the proxy hold these folders; return their ids there."""
    there = [(await row(world, vfolder_id)).vfid for vfolder_id in vfolder_ids]
    world.near.vfolders.update(there)
    return there


async def row(world: World, vfolder_id: UUID) -> VFolder:
    async with world.database.read() as session:
        return await session.get_one(VFolder, vfolder_id)


async def status(world: World, vfolder_id: UUID) -> VFolderStatus:
    return (await row(world, vfolder_id)).status


async def become(world: World, vfolder_id: UUID, wanted: VFolderStatus) -> None:
    async def there() -> bool:
        return await status(world, vfolder_id) is wanted

    await until(there)


async def test_the_owner_deletes_a_folder_and_nothing_else(world: World) -> None:
    other = await world.make_folder(world.user_a, "other")
    foreign = await world.make_folder(world.user_b, "mine")
    _mine, *kept = await on_disk(world, world.folder, other, foreign)
    deleted = await vfolders(world).delete(world.user_a, world.folder)
    assert deleted.vfolder.status is VFolderStatus.DELETE_COMPLETE
    assert world.near.vfolders == set(kept)
    assert await status(world, world.folder) is VFolderStatus.DELETE_COMPLETE
    assert [await status(world, each) for each in (other, foreign)] == [VFolderStatus.READY] * 2


async def test_a_deletion_is_in_the_audit_log_once(world: World) -> None:
    world.near.refuse["delete_vfolder"] = errors.Unavailable("not now")
    for _ in range(2):
        await vfolders(world).delete(world.user_a, world.folder)
    found = [entry[2:5] for entry in (await world.rows())["audit_log"]]
    assert found == [(world.user_a.user_id, "vfolder.delete", str(world.folder))]


async def test_the_name_is_free_at_once_and_the_row_is_kept(world: World) -> None:
    await world.near.stop()
    await vfolders(world).delete(world.user_a, world.folder)
    assert await status(world, world.folder) is VFolderStatus.DELETE_PENDING
    await world.near.start()
    again = await vfolders(world).create(
        world.user_a, name="mine", usage_mode=VFolderUsageMode.MODEL, host=None, project_id=None
    )
    assert again.id != world.folder
    assert (await row(world, world.folder)).name == "mine"


async def a_project_folder(world: World, permission: VFolderPermission | None, **project: Any) -> UUID:
    """A folder of a project of which user B is a member, with a permission of B's own where it is given."""
    lab = Project(id=uuid4(), name="lab", **project)
    await world.add(lab)
    await world.add(ProjectMember(project_id=lab.id, user_id=world.user_b.user_id))
    folder = await world.make_folder(None, "shared", project_id=lab.id)
    if permission is not None:
        await world.add(VFolderGrant(vfolder_id=folder, user_id=world.user_b.user_id, permission=permission))
    return folder


async def test_a_member_with_rw_delete_deletes_a_projects_folder(world: World) -> None:
    folder = await a_project_folder(world, VFolderPermission.RW_DELETE)
    deleted = await vfolders(world).delete(world.user_b, folder)
    assert deleted.vfolder.status is VFolderStatus.DELETE_COMPLETE


@pytest.mark.parametrize("permission", [None, VFolderPermission.READ_ONLY, VFolderPermission.READ_WRITE])
async def test_a_member_without_rw_delete_does_not(
    world: World, permission: VFolderPermission | None
) -> None:
    folder = await a_project_folder(world, permission)
    await refused(world, world.user_b, folder, Forbidden)


async def refused(world: World, caller: Caller, folder: UUID, kind: type[StowageError]) -> StowageError:
    """Ask for a deletion that is refused: nothing changes, here and at the proxy."""
    if await folder_exists(world, folder):
        await on_disk(world, folder)
    rows, files = await world.rows(), set(world.near.vfolders)
    with pytest.raises(kind) as caught:
        await vfolders(world).delete(caller, folder)
    assert caught.value.field == "input.vfolderId"
    assert (await world.rows(), world.near.vfolders) == (rows, files)
    return caught.value


async def folder_exists(world: World, folder: UUID) -> bool:
    async with world.database.read() as session:
        return await session.get(VFolder, folder) is not None


async def test_a_folder_that_the_caller_does_not_see_is_as_if_it_did_not_exist(world: World) -> None:
    foreign = await refused(world, world.user_b, world.folder, NotFound)
    nothing = await refused(world, world.user_b, uuid4(), NotFound)
    assert foreign.message == nothing.message


async def test_an_administrator_deletes_ones_own_and_no_others(world: World) -> None:
    await refused(world, world.admin, world.folder, Forbidden)
    store = await a_project_folder(world, None, type=ProjectType.MODEL_STORE)
    await refused(world, world.admin, store, Forbidden)
    own = await world.make_folder(world.admin, "own")
    deleted = await vfolders(world).delete(world.admin, own)
    assert deleted.vfolder.status is VFolderStatus.DELETE_COMPLETE


async def test_a_host_that_does_not_let_delete_is_forbidden(world: World) -> None:
    await world.add(HostPermission(host="near:volume2", permissions=["create-vfolder", "upload-file"]))
    folder = await world.make_folder(world.user_a, "elsewhere", host="near:volume2")
    assert "delete-vfolder" in (await refused(world, world.user_a, folder, Forbidden)).message


async def test_a_folder_outside_our_management_is_forbidden(world: World) -> None:
    folder = await world.make_folder(world.user_a, "outside", unmanaged_path="/data")
    await refused(world, world.user_a, folder, Forbidden)


@pytest.mark.parametrize("busy", [VFolderStatus.MOUNTED, VFolderStatus.PERFORMING, VFolderStatus.CLONING])
async def test_a_folder_in_use_is_a_conflict(world: World, busy: VFolderStatus) -> None:
    folder = await world.make_folder(world.user_a, "busy", status=busy)
    await refused(world, world.user_a, folder, Conflict)


async def test_a_folder_that_is_gone_is_not_there(world: World) -> None:
    await vfolders(world).delete(world.user_a, world.folder)
    await refused(world, world.user_a, world.folder, NotFound)


async def test_a_folder_of_a_proxy_that_is_not_configured_stays(world: World) -> None:
    await world.add(HostPermission(host="lost:volume1", permissions=["delete-vfolder"]))
    folder = await world.make_folder(world.user_a, "lost", host="lost:volume1")
    await refused(world, world.user_a, folder, Conflict)


# Imports into the folder.


async def an_import(world: World, folder: UUID | None = None) -> ImportTask:
    (found,) = await world.service().import_revisions(
        world.user_a, [world.revision], folder or world.folder, ImportOptions()
    )
    assert found.task is not None
    return found.task


async def test_an_open_import_keeps_its_folder_until_it_ends(world: World) -> None:
    task = await an_import(world)
    assert str(task.id) in (await refused(world, world.user_a, world.folder, Conflict)).message
    other = await world.make_folder(world.user_a, "other")
    await vfolders(world).delete(world.user_a, other)
    await world.execute("UPDATE import_tasks SET finished_at = now(), status = 'CANCELLED'")
    deleted = await vfolders(world).delete(world.user_a, world.folder)
    assert deleted.vfolder.status is VFolderStatus.DELETE_COMPLETE
    assert (await world.task(task.id)).vfolder_id == world.folder


async def test_a_deletion_waits_for_an_import_that_just_begins_and_then_refuses(world: World) -> None:
    async with world.database.begin() as session:
        await writable_vfolder(session, world.user_a, world.folder, lock=True)
        deletion = asyncio.create_task(vfolders(world).delete(world.user_a, world.folder))
        await until(lambda: waits_for_a_lock(world))
        session.add(
            ImportTask(
                request_id="r",
                requested_by_id=world.user_a.user_id,
                artifact_revision_id=world.revision,
                proxy="near",
                vfolder_id=world.folder,
                path="x",
                destination="x",
                on_conflict="FAIL",
                order={},
                status=ImportTaskStatus.PENDING,
            )
        )
    with pytest.raises(Conflict):
        await deletion
    assert await status(world, world.folder) is VFolderStatus.READY


async def test_an_import_that_comes_while_the_folder_is_deleted_is_refused(world: World) -> None:
    async with world.database.begin() as session:
        folder = await session.get_one(VFolder, world.folder, with_for_update=True)
        attempt = asyncio.create_task(an_import(world))
        await until(lambda: waits_for_a_lock(world))
        folder.status = VFolderStatus.DELETE_ONGOING
    with pytest.raises(Conflict):
        await attempt
    assert (await world.rows())["import_tasks"] == []


async def waits_for_a_lock(world: World) -> bool:
    from sqlalchemy import text  # noqa: PLC0415 -- only here

    async with world.database.read() as session:
        waiting = await session.scalar(
            text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        )
    return bool(waiting)


# A proxy that does not do it.


async def test_a_proxy_that_is_away_gets_it_done_when_it_is_back(world: World) -> None:
    other = await world.make_folder(world.user_a, "other")
    _mine, kept = await on_disk(world, world.folder, other)
    await world.near.stop()
    deleted = await vfolders(world).delete(world.user_a, world.folder)
    assert deleted.vfolder.status is VFolderStatus.DELETE_PENDING
    async with reconciling(world):
        await asyncio.sleep(0.2)
        assert await status(world, world.folder) is VFolderStatus.DELETE_PENDING
        await world.near.start()
        await become(world, world.folder, VFolderStatus.DELETE_COMPLETE)
    assert world.near.vfolders == {kept}
    assert await status(world, other) is VFolderStatus.READY


async def test_a_slow_proxy_does_not_keep_the_caller_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manager.vfolders.DELETE_DEADLINE", 0)
    deleted = await vfolders(world).delete(world.user_a, world.folder)
    assert deleted.vfolder.status is VFolderStatus.DELETE_PENDING


async def test_a_deletion_whose_manager_died_is_finished(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manager.reconciler._ABANDONED", 0.3)
    folder = await world.make_folder(world.user_a, "dying", status=VFolderStatus.DELETE_ONGOING)
    (there,) = await on_disk(world, folder)
    async with reconciling(world):
        await asyncio.sleep(0.1)
        assert there in world.near.vfolders, "a deletion that a request may be about is left to it"
        await become(world, folder, VFolderStatus.DELETE_COMPLETE)
    assert there not in world.near.vfolders


async def test_a_refusal_is_told_and_may_be_tried_again(world: World) -> None:
    world.near.refuse["delete_vfolder"] = StorageFailure("the file system failed (EIO)")
    with pytest.raises(StorageFailure, match="EIO"):
        await vfolders(world).delete(world.user_a, world.folder)
    assert await status(world, world.folder) is VFolderStatus.DELETE_ERROR
    world.near.refuse.clear()
    deleted = await vfolders(world).delete(world.user_a, world.folder)
    assert deleted.vfolder.status is VFolderStatus.DELETE_COMPLETE


async def test_a_refusal_of_a_later_try_ends_the_tries(world: World) -> None:
    folder = await world.make_folder(world.user_a, "waiting", status=VFolderStatus.DELETE_PENDING)
    world.near.refuse["delete_vfolder"] = StorageFailure("the file system failed (EIO)")
    async with reconciling(world):
        await become(world, folder, VFolderStatus.DELETE_ERROR)


async def test_a_wrong_secret_is_no_refusal(world: World) -> None:
    world.near.refuse["delete_vfolder"] = errors.Unauthenticated("wrong secret")
    deleted = await vfolders(world).delete(world.user_a, world.folder)
    assert deleted.vfolder.status is VFolderStatus.DELETE_PENDING


@pytest.mark.parametrize("begun", DELETING)
async def test_a_folder_on_its_way_out_takes_no_import(world: World, begun: VFolderStatus) -> None:
    folder = await world.make_folder(world.user_a, "leaving", status=begun)
    with pytest.raises(Conflict):
        await an_import(world, folder)
