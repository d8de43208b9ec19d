"""Importing again what ended without success."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from manager.imports import ImportOptions
from manager.models import (
    ArtifactStatus,
    ImportConflictPolicy,
    ImportTask,
    ImportTaskStatus,
    UserGrant,
    VFolderGrant,
    VFolderPermission,
)
from proxy_client import wire
from proxy_client.errors import Conflict, Forbidden, NotFound, StowageError
from tests.manager.world import World, commit_of

pytestmark = pytest.mark.anyio

ENDED = (ImportTaskStatus.FAILED, ImportTaskStatus.CANCELLED)


async def ended(
    world: World,
    status: ImportTaskStatus = ImportTaskStatus.FAILED,
    *,
    into_folder: bool = True,
    **options: Any,
) -> ImportTask:
    """An import of user A's into a folder of A's, or the administrator's into the artifact storage."""
    caller, folder = (world.user_a, world.folder) if into_folder else (world.admin, None)
    (found,) = await world.service().import_revisions(
        caller, [world.revision], folder, ImportOptions(**options)
    )
    assert found.task is not None
    await world.execute(
        "UPDATE import_tasks SET status = :status, finished_at = now() WHERE id = :id",
        status=status,
        id=found.task.id,
    )
    if not into_folder:
        await world.execute("UPDATE artifact_revisions SET status = 'FAILED'")
    return found.task


@pytest.mark.parametrize("status", ENDED)
async def test_a_retry_is_a_new_import_of_the_same(world: World, status: ImportTaskStatus) -> None:
    task = await ended(world, status, force=True, path="models/x", on_conflict=ImportConflictPolicy.OVERWRITE)
    again = await world.service().retry_task(world.user_a, task.id)
    assert again.id != task.id
    assert (again.artifact_revision_id, again.vfolder_id) == (task.artifact_revision_id, task.vfolder_id)
    first, second = (world.near.orders[each] for each in (task.id, again.id))
    assert second == first.model_copy(update={"task_id": again.id, "request_id": world.user_a.request_id})
    assert (second.path, second.force, second.on_conflict) == ("models/x", True, wire.OnConflict.OVERWRITE)
    assert (await world.task(task.id)).status is status


async def test_a_retry_keeps_the_default_path(world: World) -> None:
    revision = await world.make_revision("org/model", "feature/x y")
    (found,) = await world.service().import_revisions(world.user_a, [revision], world.folder, ImportOptions())
    assert found.task is not None
    await world.execute("UPDATE import_tasks SET status = 'FAILED', finished_at = now()")
    again = await world.service().retry_task(world.user_a, found.task.id)
    assert again.path == found.task.path == "org/model/feature%2Fx y"


async def test_a_retry_into_the_artifact_storage(world: World) -> None:
    task = await ended(world, into_folder=False)
    again = await world.service().retry_task(world.admin, task.id)
    assert again.storage_name == "archive"
    assert (await world.revision_row(world.revision)).status is ArtifactStatus.PULLING


async def test_a_retry_brings_the_commit_that_the_catalogue_holds_now(world: World) -> None:
    task = await ended(world)
    moved = commit_of("moved")
    await world.execute("UPDATE artifact_revisions SET digest = :digest, size = 7", digest=moved)
    again = await world.service().retry_task(world.user_a, task.id)
    order = world.near.orders[again.id]
    assert (order.model.commit, order.expected_size) == (moved, 7)


async def test_a_second_retry_is_the_first_ones_import(world: World) -> None:
    task = await ended(world)
    again = await world.service().retry_task(world.user_a, task.id)
    assert (await world.service().retry_task(world.user_a, task.id)).id == again.id


async def refused(world: World, caller: Any, task_id: UUID, kind: type[StowageError]) -> None:
    rows, received = await world.rows(), list(world.near.received)
    with pytest.raises(kind) as caught:
        await world.service().retry_task(caller, task_id)
    assert caught.value.field == "input.taskId"
    assert (await world.rows(), world.near.received) == (rows, received)


@pytest.mark.parametrize(
    "status", [ImportTaskStatus.PENDING, ImportTaskStatus.RUNNING, ImportTaskStatus.NEEDS_APPROVAL]
)
async def test_an_open_import_is_a_conflict(world: World, status: ImportTaskStatus) -> None:
    task = await ended(world, status)
    await world.execute("UPDATE import_tasks SET finished_at = NULL")
    await refused(world, world.user_a, task.id, Conflict)


async def test_an_import_that_succeeded_is_a_conflict(world: World) -> None:
    task = await ended(world, ImportTaskStatus.SUCCEEDED)
    await refused(world, world.user_a, task.id, Conflict)


async def test_a_task_that_the_caller_does_not_see_is_as_if_it_did_not_exist(world: World) -> None:
    task = await ended(world)
    await refused(world, world.user_b, task.id, NotFound)
    await refused(world, world.user_b, uuid4(), NotFound)


async def test_access_to_the_folder_is_proven_anew(world: World) -> None:
    theirs = await world.make_folder(world.user_b, "theirs")
    grant = VFolderGrant(
        vfolder_id=theirs, user_id=world.user_a.user_id, permission=VFolderPermission.READ_WRITE
    )
    await world.add(grant)
    (found,) = await world.service().import_revisions(world.user_a, [world.revision], theirs, ImportOptions())
    assert found.task is not None
    await world.execute("UPDATE import_tasks SET status = 'FAILED', finished_at = now()")
    await world.execute("UPDATE vfolder_permissions SET permission = 'READ_ONLY'")
    await refused(world, world.user_a, found.task.id, Forbidden)
    await world.execute("DELETE FROM vfolder_permissions")
    await refused(world, world.user_a, found.task.id, NotFound)
    # The folder's owner sees the task and may write there.
    assert (await world.service().retry_task(world.user_b, found.task.id)).requested_by_id == (
        world.user_b.user_id
    )


async def test_an_administrator_sees_a_task_and_still_may_not_write_to_the_folder(world: World) -> None:
    task = await ended(world)
    await refused(world, world.admin, task.id, Forbidden)


async def test_the_grant_for_the_artifact_storage_is_proven_anew(world: World) -> None:
    await world.add(UserGrant(user_id=world.user_a.user_id, permission="artifact:import"))
    (found,) = await world.service().import_revisions(world.user_a, [world.revision], None, ImportOptions())
    assert found.task is not None
    await world.execute("UPDATE import_tasks SET status = 'FAILED', finished_at = now()")
    await world.execute("DELETE FROM user_grants")
    with pytest.raises(Forbidden, match="artifact:import"):
        await world.service().retry_task(world.user_a, found.task.id)


async def test_a_revision_that_is_stored_by_now_is_a_conflict(world: World) -> None:
    task = await ended(world, into_folder=False)
    await world.execute("UPDATE artifact_revisions SET status = 'AVAILABLE', stored_commit = digest")
    await refused(world, world.admin, task.id, Conflict)


async def test_a_deleted_artifact_is_a_conflict(world: World) -> None:
    task = await ended(world)
    await world.execute("UPDATE artifacts SET availability = 'DELETED'")
    await refused(world, world.user_a, task.id, Conflict)
