"""`ArtifactRevisionService.import_revisions`: what it promises, and what it refuses whole."""

import asyncio
from pathlib import Path
from typing import Any, Self
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event

from manager.auth import Caller
from manager.db import Database
from manager.imports import ImportedRevision, ImportOptions
from manager.models import (
    ArtifactAvailability,
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactStatus,
    ImportConflictPolicy,
    ImportTask,
    ImportTaskStatus,
    UserGrant,
    VFolderGrant,
    VFolderPermission,
    VFolderStatus,
)
from proxy_client import errors
from proxy_client.errors import StowageError
from tests.manager.stand_in import SECRET
from tests.manager.world import World, commit_of, settings_in

pytestmark = pytest.mark.anyio

PLAIN = ImportOptions()


def task_of(imported: ImportedRevision) -> ImportTask:
    assert imported.task is not None
    return imported.task


class Statements:
    """Counts what reaches the driver; a call with many parameter sets counts as that many."""

    def __init__(self, database: Database) -> None:
        self.engine = database.engine.sync_engine
        self.seen: list[str] = []

    def __enter__(self) -> Self:
        event.listen(self.engine, "before_cursor_execute", self._count)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self.engine, "before_cursor_execute", self._count)

    def _count(self, _c: Any, _u: Any, statement: str, parameters: Any, _x: Any, executemany: bool) -> None:
        self.seen += [statement] * (len(parameters) if executemany else 1)


# What it does.


async def test_an_import_into_a_vfolder_is_ordered_at_the_folders_own_proxy(world: World) -> None:
    folder = await world.make_folder(world.user_a, "far away", host="far:volume1")
    (imported,) = await world.service().import_revisions(world.user_a, [world.revision], folder, PLAIN)
    task = task_of(imported)
    assert (task.status, task.ordered_at is not None) == (ImportTaskStatus.PENDING, True)
    assert imported.revision.artifact.origin.name == "hub"
    assert world.near.orders == {}
    target = {"volume_name": "volume1", "vfolder_id": f"user:{world.user_a.user_id}/{folder.hex}"}
    assert world.far.orders[task.id].model_dump(mode="json") == {
        "task_id": str(task.id),
        "request_id": world.user_a.request_id,
        "requested_by": str(world.user_a.user_id),
        "registry_name": "hub",
        "model": {"model_id": "org/model", "revision": "main", "commit": commit_of("org/model@main")},
        "storage_step_mappings": {"download": target, "verify": target, "archive": target},
        "path": "org/model/main",
        "expected_size": 1000,
        "force": False,
        "on_conflict": "fail",
    }


async def test_an_import_without_vfolder_names_the_configured_storage_of_each_step(world: World) -> None:
    (imported,) = await world.service().import_revisions(world.admin, [world.revision], None, PLAIN)
    order = world.near.orders[task_of(imported).id]
    assert order.storage_step_mappings.model_dump(mode="json") == {
        "download": {"storage_name": "scratch"},
        "verify": {"storage_name": "scratch"},
        "archive": {"storage_name": "archive"},
    }
    assert imported.revision.status is ArtifactStatus.PULLING


async def test_options_reach_the_proxy_and_a_slash_in_a_version_is_quoted(world: World) -> None:
    options = ImportOptions(force=True, on_conflict=ImportConflictPolicy.OVERWRITE)
    branch = await world.make_revision("org/model", "feature/x")
    (imported,) = await world.service().import_revisions(world.user_a, [branch], world.folder, options)
    order = world.near.orders[task_of(imported).id]
    assert (order.path, order.force, order.on_conflict) == ("org/model/feature%2Fx", True, "overwrite")
    chosen = ImportOptions(path="/")
    (imported,) = await world.service().import_revisions(world.user_a, [world.revision], world.folder, chosen)
    assert world.near.orders[task_of(imported).id].path == "/"


@pytest.mark.parametrize("into_folder", [True, False])
async def test_five_hundred_revisions_take_as_many_statements_as_one(world: World, into_folder: bool) -> None:
    folder = world.folder if into_folder else None
    caller = world.user_a if into_folder else world.admin
    many = [await world.make_revision("org/many", f"v{number}") for number in range(500)]
    with Statements(world.database) as one:
        await world.service().import_revisions(caller, [world.revision], folder, PLAIN)
    with Statements(world.database) as five_hundred:
        imported = await world.service().import_revisions(caller, many, folder, PLAIN)
    assert [found.revision.id for found in imported] == many
    assert len({task_of(found).id for found in imported}) == 500
    assert five_hundred.seen == one.seen
    assert len(one.seen) <= 9, one.seen


async def test_a_vfolder_import_leaves_the_shared_revision_alone_and_hides_nothing_from_a_later_one(
    world: World,
) -> None:
    before = await world.revision_row(world.revision)
    first = await world.service().import_revisions(world.user_a, [world.revision], world.folder, PLAIN)
    after = await world.revision_row(world.revision)
    assert (after.status, after.updated_at) == (before.status, before.updated_at)
    second = await world.service().import_revisions(world.admin, [world.revision], None, PLAIN)
    assert task_of(first[0]).id != task_of(second[0]).id
    assert len(world.near.orders) == 2


async def test_one_revision_to_two_vfolders_makes_two_tasks(world: World) -> None:
    other = await world.make_folder(world.user_a, "second")
    for folder in (world.folder, other):
        await world.service().import_revisions(world.user_a, [world.revision], folder, PLAIN)
    assert len(world.near.orders) == 2


@pytest.mark.parametrize("into_folder", [True, False])
async def test_a_repeat_answers_the_open_task_with_force_too(world: World, into_folder: bool) -> None:
    folder = world.folder if into_folder else None
    caller = world.user_a if into_folder else world.admin
    more = await world.make_revision("org/model", "dev")
    (first,) = await world.service().import_revisions(caller, [world.revision], folder, PLAIN)
    forced = ImportOptions(force=True)
    again = await world.service().import_revisions(caller, [more, world.revision], folder, forced)
    assert task_of(again[1]).id == task_of(first).id
    assert set(world.near.received) == {task_of(first).id, task_of(again[0]).id}


async def test_a_repeat_with_another_conflict_policy_is_a_conflict_and_changes_nothing(world: World) -> None:
    await world.service().import_revisions(world.user_a, [world.revision], world.folder, PLAIN)
    more = await world.make_revision("org/model", "dev")
    before = await world.rows()
    options = ImportOptions(on_conflict=ImportConflictPolicy.OVERWRITE)
    with pytest.raises(errors.Conflict) as refusal:
        await world.service().import_revisions(world.user_a, [more, world.revision], world.folder, options)
    assert refusal.value.field == "input.options.onConflict"
    assert await world.rows() == before


@pytest.mark.parametrize("into_folder", [True, False])
async def test_requests_that_race_for_the_same_imports_share_their_tasks(
    world: World, into_folder: bool
) -> None:
    folder = world.folder if into_folder else None
    caller = world.user_a if into_folder else world.admin
    ids = [await world.make_revision("org/many", f"v{number}") for number in range(20)]
    orders = [ids if turn % 2 else ids[::-1] for turn in range(8)]
    answers = await asyncio.gather(
        *(world.service().import_revisions(caller, order, folder, PLAIN) for order in orders)
    )
    assert len({task_of(found).id for answer in answers for found in answer}) == 20
    assert len(world.near.orders) == 20


async def test_what_the_archive_holds_already_makes_no_task_unless_forced(world: World) -> None:
    stored = await world.make_revision(
        "org/stored", "main", status=ArtifactStatus.AVAILABLE, stored_commit=commit_of("org/stored@main")
    )
    stale = await world.make_revision(
        "org/stale", "main", status=ArtifactStatus.AVAILABLE, stored_commit=commit_of("older")
    )
    found = await world.service().import_revisions(world.admin, [stored, stale], None, PLAIN)
    assert found[0].task is None
    assert found[0].revision.status is ArtifactStatus.AVAILABLE
    assert found[1].task is not None
    into_folder = await world.service().import_revisions(world.user_a, [stored], world.folder, PLAIN)
    assert into_folder[0].task is not None
    forced = await world.service().import_revisions(world.admin, [stored], None, ImportOptions(force=True))
    assert task_of(forced[0]).status_before is ArtifactStatus.AVAILABLE


async def test_a_proxy_that_is_down_leaves_the_tasks_pending(world: World) -> None:
    await world.near.stop()
    more = await world.make_revision("org/model", "dev")
    found = await world.service().import_revisions(world.user_a, [world.revision, more], world.folder, PLAIN)
    for imported in found:
        task = task_of(imported)
        assert (task.status, task.ordered_at) == (ImportTaskStatus.PENDING, None)


async def test_a_broken_proxy_leaves_the_tasks_pending(world: World) -> None:
    for refusal in (errors.Internal("x"), errors.Unauthenticated("x"), errors.Unavailable("x")):
        world.near.refuse["start_import"] = refusal
        (found,) = await world.service().import_revisions(world.user_a, [world.revision], world.folder, PLAIN)
        assert task_of(found).status is ImportTaskStatus.PENDING
        assert task_of(found).ordered_at is None


@pytest.mark.parametrize("into_folder", [True, False])
async def test_one_refused_order_fails_alone_and_no_id_is_lost(world: World, into_folder: bool) -> None:
    folder = world.folder if into_folder else None
    caller = world.user_a if into_folder else world.admin
    bad = await world.make_revision("org/bad", "main")
    more = await world.make_revision("org/model", "dev")
    world.near.refuse_model["org/bad"] = errors.NotFound("there is no such registry")
    found = await world.service().import_revisions(caller, [world.revision, bad, more], folder, PLAIN)
    assert [task_of(imported).status for imported in found] == [
        ImportTaskStatus.PENDING,
        ImportTaskStatus.FAILED,
        ImportTaskStatus.PENDING,
    ]
    failed = task_of(found[1])
    assert failed.error == {"code": "NOT_FOUND", "message": "there is no such registry", "step": None}
    assert failed.finished_at is not None
    expected = ArtifactStatus.SCANNED if into_folder else ArtifactStatus.FAILED
    assert found[1].revision.status is (await world.revision_row(bad)).status is expected


async def test_a_vfolder_import_needs_no_artifact_storage(world: World, tmp_path: Path) -> None:
    settings = settings_in(tmp_path, {"near": SECRET}, without="reservoir")
    service = world.service(settings)
    (found,) = await service.import_revisions(world.user_a, [world.revision], world.folder, PLAIN)
    assert task_of(found).id in world.near.orders
    with pytest.raises(errors.Conflict, match=r"\[reservoir\]"):
        await service.import_revisions(world.admin, [world.revision], None, PLAIN)


async def test_a_granted_user_may_fill_the_artifact_storage(world: World) -> None:
    await world.add(UserGrant(user_id=world.user_a.user_id, permission="artifact:import"))
    (found,) = await world.service().import_revisions(world.user_a, [world.revision], None, PLAIN)
    assert found.task is not None


# What it refuses: whole, by a code and a field, changing nothing.

A = "user_a"
OVERWRITE = ImportOptions(on_conflict=ImportConflictPolicy.OVERWRITE)
IDS = "input.artifactRevisionIds"


@pytest.mark.parametrize(
    ("caller", "ids", "folder", "options", "code", "field"),
    [
        (A, "good unknown", "folder", PLAIN, "NOT_FOUND", f"{IDS}[1]"),
        ("admin", "good unknown", None, PLAIN, "NOT_FOUND", f"{IDS}[1]"),
        (A, "good other good", "folder", PLAIN, "BAD_REQUEST", f"{IDS}[2]"),
        (A, "", "folder", PLAIN, "BAD_REQUEST", IDS),
        (A, "501", "folder", PLAIN, "BAD_REQUEST", IDS),
        (A, "good deleted", "folder", PLAIN, "CONFLICT", f"{IDS}[1]"),
        (A, "good reservoir", "folder", PLAIN, "UNSUPPORTED_REGISTRY", f"{IDS}[1]"),
        ("admin", "good reservoir", None, PLAIN, "UNSUPPORTED_REGISTRY", f"{IDS}[1]"),
        (A, "good", None, PLAIN, "FORBIDDEN", None),
        ("admin", "good", None, ImportOptions(path="x"), "BAD_REQUEST", "input.options.path"),
        ("admin", "good", None, OVERWRITE, "BAD_REQUEST", "input.options.onConflict"),
        (A, "good other", "folder", ImportOptions(path="x"), "BAD_REQUEST", "input.options.path"),
        (A, "good", "unknown", PLAIN, "NOT_FOUND", "input.vfolderId"),
        (A, "good", "of_b", PLAIN, "NOT_FOUND", "input.vfolderId"),
        ("admin", "good", "of_b", PLAIN, "FORBIDDEN", "input.vfolderId"),
        (A, "good", "read_only", PLAIN, "FORBIDDEN", "input.vfolderId"),
        (A, "good", "trashed", PLAIN, "CONFLICT", "input.vfolderId"),
        (A, "good", "gone", PLAIN, "NOT_FOUND", "input.vfolderId"),
        (A, "good", "unmanaged", PLAIN, "FORBIDDEN", "input.vfolderId"),
        (A, "good", "no_upload", PLAIN, "FORBIDDEN", "input.vfolderId"),
        (A, "good", "no_proxy", PLAIN, "CONFLICT", "input.vfolderId"),
    ],
)
async def test_a_refused_request_changes_nothing(
    world: World,
    caller: str,
    ids: str,
    folder: str | None,
    options: ImportOptions,
    code: str,
    field: str | None,
) -> None:
    revisions, folders = await refusable(world)
    asked = [uuid4() for _ in range(501)] if ids == "501" else [revisions[name] for name in ids.split()]
    before = await world.rows()
    with pytest.raises(StowageError) as refusal:
        await world.service().import_revisions(
            getattr(world, caller), asked, folders[folder] if folder else None, options
        )
    assert (refusal.value.code, refusal.value.field) == (code, field)
    assert await world.rows() == before
    assert world.near.received == world.far.received == []


async def refusable(world: World) -> tuple[dict[str, UUID], dict[str, UUID]]:
    """Revisions and folders of which all but `good`, `other` and `folder` are to be refused."""
    reservoir = ArtifactRegistry(id=uuid4(), name="res", type=ArtifactRegistryType.RESERVOIR, url="http://x")
    await world.add(reservoir)
    revisions = {
        "good": world.revision,
        "other": await world.make_revision("org/model", "dev"),
        "unknown": uuid4(),
        "deleted": await world.make_revision("org/x", "main", availability=ArtifactAvailability.DELETED),
        "reservoir": await world.make_revision("org/x", "main", registry=reservoir),
    }
    a = world.user_a
    folders = {
        "folder": world.folder,
        "unknown": uuid4(),
        "of_b": await world.make_folder(world.user_b, "b"),
        "read_only": await world.make_folder(world.user_b, "read only"),
        "trashed": await world.make_folder(a, "trashed", status=VFolderStatus.DELETE_PENDING),
        "gone": await world.make_folder(a, "gone", status=VFolderStatus.DELETE_COMPLETE),
        "unmanaged": await world.make_folder(a, "unmanaged", unmanaged_path="/somewhere"),
        "no_upload": await world.make_folder(a, "no upload", host="near:volume2"),
        "no_proxy": await world.make_folder(a, "no proxy", host="gone:volume1"),
    }
    grant = VFolderGrant(
        vfolder_id=folders["read_only"], user_id=a.user_id, permission=VFolderPermission.READ_ONLY
    )
    await world.add(grant)
    await world.execute(
        "INSERT INTO host_permissions (id, host, permissions) VALUES (gen_random_uuid(), 'gone:volume1', '{upload-file}')"
    )
    return revisions, folders


BAD_PATHS = [
    *("", "/abs", "//", "a//b", "a/", "../x", "a/../b", "./a", ".staging/x", "a/.stowage", "a\\b"),
    *("a\nb", "a\x00b", "a\u202eb", " a", "a/b ", "x" * 256, "/".join(["x" * 200] * 11)),
]


async def test_a_bad_path_is_refused(world: World) -> None:
    before = await world.rows()
    for path in BAD_PATHS:
        with pytest.raises(errors.BadRequest) as refusal:
            await world.service().import_revisions(
                world.user_a, [world.revision], world.folder, ImportOptions(path=path)
            )
        assert refusal.value.field == "input.options.path"
    assert await world.rows() == before


async def test_the_longest_allowed_path_fits_the_index(world: World) -> None:
    unlike = "".join(chr(0xAC00 + number * 7 % 11000) for number in range(80))
    path = "/".join(f"{number}{unlike}" for number in range(8))
    options = ImportOptions(path=path)
    (found,) = await world.service().import_revisions(world.user_a, [world.revision], world.folder, options)
    assert task_of(found).path == path


async def test_every_write_is_audited_with_its_task_ids(world: World) -> None:
    (found,) = await world.service().import_revisions(world.user_a, [world.revision], world.folder, PLAIN)
    (entry,) = (await world.rows())["audit_log"]
    assert world.user_a.user_id in entry
    assert str(task_of(found).id) in str(entry)


# Cancelling.


async def ordered(world: World, caller: Caller, folder: UUID | None) -> ImportTask:
    (found,) = await world.service().import_revisions(caller, [world.revision], folder, PLAIN)
    return task_of(found)


async def test_a_task_that_was_never_ordered_is_cancelled_at_once(world: World) -> None:
    await world.near.stop()
    task = await ordered(world, world.admin, None)
    assert (await world.revision_row(world.revision)).status is ArtifactStatus.PULLING
    cancelled = await world.service().cancel_task(world.admin, task.id)
    assert cancelled.status is ImportTaskStatus.CANCELLED
    assert cancelled.artifact_revision.status is ArtifactStatus.SCANNED


async def test_an_ordered_task_is_cancelled_by_its_proxy(world: World) -> None:
    task = await ordered(world, world.user_a, world.folder)
    cancelled = await world.service().cancel_task(world.user_a, task.id)
    assert (cancelled.status, cancelled.finished_at) == (ImportTaskStatus.PENDING, None)
    assert cancelled.cancel_requested_at is not None
    assert world.near.cancels == [task.id]


async def test_an_order_that_arrives_after_the_cancel_is_cancelled_at_the_proxy(world: World) -> None:
    async def cancel_meanwhile(order: Any) -> None:
        await world.service().cancel_task(world.user_a, order.task_id)

    world.near.before_order = cancel_meanwhile
    task = await ordered(world, world.user_a, world.folder)
    assert task.status is ImportTaskStatus.CANCELLED
    # The first came before the order, the second after it.
    assert world.near.cancels == [task.id, task.id]


async def test_a_finished_task_is_answered_as_it_is(world: World) -> None:
    world.near.refuse_model["org/model"] = errors.BadRequest("no")
    task = await ordered(world, world.user_a, world.folder)
    before = await world.rows()
    cancelled = await world.service().cancel_task(world.user_a, task.id)
    assert cancelled.status is ImportTaskStatus.FAILED
    assert await world.rows() == before
    assert world.near.cancels == []


async def test_only_requester_owner_and_administrators_may_cancel(world: World) -> None:
    grant = VFolderGrant(
        vfolder_id=world.folder, user_id=world.user_b.user_id, permission=VFolderPermission.READ_WRITE
    )
    await world.add(grant)
    stranger = await world.user("stranger@example.org")
    for who in (world.user_a, world.user_b, world.admin):
        task = await ordered(world, world.user_b, world.folder)
        with pytest.raises(errors.NotFound) as refusal:
            await world.service().cancel_task(stranger, task.id)
        assert refusal.value.field == "input.taskId"
        assert (await world.service().cancel_task(who, task.id)).cancel_requested_at is not None
    own = await ordered(world, world.user_a, world.folder)
    assert own.id == task.id  # a writer is no owner: another's task stays unseen unless one asked for it
    other = await world.make_revision("org/model", "dev")
    (found,) = await world.service().import_revisions(world.user_a, [other], world.folder, PLAIN)
    with pytest.raises(errors.NotFound):
        await world.service().cancel_task(world.user_b, task_of(found).id)


async def test_cancelling_a_revisions_import_speaks_of_the_artifact_storage_alone(world: World) -> None:
    into_folder = await ordered(world, world.admin, await world.make_folder(world.admin, "admins"))
    with pytest.raises(errors.Conflict) as refusal:
        await world.service().cancel_revision_import(world.admin, world.revision)
    assert refusal.value.field == "input.artifactRevisionId"
    task = await ordered(world, world.admin, None)
    with pytest.raises(errors.Conflict):
        await world.service().cancel_revision_import(world.user_a, world.revision)
    revision = await world.service().cancel_revision_import(world.admin, world.revision)
    assert revision.artifact.name == "org/model"
    assert world.near.cancels == [task.id]
    assert (await world.task(into_folder.id)).cancel_requested_at is None
    with pytest.raises(errors.NotFound):
        await world.service().cancel_revision_import(world.admin, uuid4())
