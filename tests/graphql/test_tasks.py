from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from manager.graphql.ids import global_id
from manager.models import (
    ArtifactRevision,
    ArtifactStatus,
    ImportConflictPolicy,
    ImportStep,
    ImportTask,
    ImportTaskStatus,
    VFolder,
    VFolderGrant,
    VFolderPermission,
)
from tests.graphql.served import COMMIT, Json, Manager, Person

pytestmark = pytest.mark.anyio

MOMENT = datetime(2026, 1, 2, tzinfo=UTC)
LIST = """query($status: [ImportTaskStatus!], $revision: ID, $folder: ID) {
  importTasks(status: $status, artifactRevisionId: $revision, vfolderId: $folder) {
    count edges { node { id } } } }"""
CANCEL = "mutation($id: ID!) { cancelImportTask(input: {taskId: $id}) { task { id status } } }"


async def a_task(
    manager: Manager, by: Person, revision: ArtifactRevision, folder: VFolder | None, **values: Any
) -> ImportTask:
    number = uuid4().hex
    task = ImportTask(
        **{
            "request_id": "request-1",
            "requested_by_id": by.id,
            "artifact_revision_id": revision.id,
            "proxy": "local",
            "vfolder_id": folder.id if folder else None,
            "storage_name": None if folder else "archive",
            "path": "org/model/main",
            "destination": number,
            "on_conflict": ImportConflictPolicy.FAIL,
            "order": {},
            "ordered_at": MOMENT,
        }
        | values
    )
    await manager.add(task)
    return task


def ids(data: Json) -> list[str]:
    return [edge["node"]["id"] for edge in data["importTasks"]["edges"]]


async def test_every_field_of_a_task(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact())
    folder = await manager.folder(manager.admin)
    task = await a_task(
        manager,
        manager.admin,
        revision,
        folder,
        status=ImportTaskStatus.FAILED,
        step=ImportStep.VERIFY,
        commit=COMMIT,
        files_done=1,
        files_total=2,
        bytes_done=5_000_000_000,
        bytes_total=6_000_000_000,
        bytes_per_second=1.5,
        error={"code": "DIGEST_MISMATCH", "message": "bytes differ", "step": "verify"},
        verification={"verdict": "clean", "verifiers": []},
        created_at=MOMENT,
        started_at=MOMENT,
        finished_at=MOMENT,
    )
    data = await manager.ask(
        """query($id: ID!) { importTask(id: $id) {
          id status step artifactRevision { version } path commit filesDone filesTotal bytesDone bytesTotal
          bytesPerSecond error { code message step } verificationResult { verifiers { name } } requestId
          requestedBy { id email role } createdAt startedAt finishedAt
          destination { ... on VFolderDestination { vfolder { name permission project { name } } } }
        } }""",
        {"id": str(task.id)},
    )
    assert data["importTask"] == {
        "id": global_id("ImportTask", task.id),
        "status": "FAILED",
        "step": "VERIFY",
        "artifactRevision": {"version": "main"},
        "path": "org/model/main",
        "commit": COMMIT,
        "filesDone": 1,
        "filesTotal": 2,
        "bytesDone": "5000000000",
        "bytesTotal": "6000000000",
        "bytesPerSecond": 1.5,
        "error": {"code": "DIGEST_MISMATCH", "message": "bytes differ", "step": "VERIFY"},
        "verificationResult": {"verifiers": []},
        "requestId": "request-1",
        "requestedBy": {
            "id": global_id("User", manager.admin.id),
            "email": "admin@localhost",
            "role": "ADMIN",
        },
        "createdAt": MOMENT.isoformat(),
        "startedAt": MOMENT.isoformat(),
        "finishedAt": MOMENT.isoformat(),
        "destination": {
            "vfolder": {"name": folder.name, "permission": "RW_DELETE", "project": None},
        },
    }


async def test_a_task_is_seen_by_its_requester_the_folders_owner_and_administrators(manager: Manager) -> None:
    requester, owner, stranger = [await manager.person() for _ in range(3)]
    revision = await manager.revision(await manager.artifact())
    task = await a_task(manager, requester, revision, await manager.folder(owner))
    query = "query($id: ID!) { importTask(id: $id) { id } }"
    shown = {"importTask": {"id": global_id("ImportTask", task.id)}}
    for person in (requester, owner, manager.admin):
        assert await manager.ask(query, {"id": str(task.id)}, by=person) == shown
        assert ids(await manager.ask(LIST, by=person)) == [shown["importTask"]["id"]]
    assert await manager.ask(query, {"id": str(task.id)}, by=stranger) == {"importTask": None}
    assert (await manager.ask(LIST, by=stranger))["importTasks"] == {"count": 0, "edges": []}
    errors = [await manager.refusal(CANCEL, {"id": str(key)}, by=stranger) for key in (task.id, uuid4())]
    assert errors[0] == errors[1]
    assert errors[0]["extensions"] == {"code": "NOT_FOUND", "field": "input.taskId"}
    assert manager.proxy.cancelled == []


async def test_who_lost_the_folder_still_reads_the_task(manager: Manager) -> None:
    requester, owner = await manager.person(), await manager.person()
    revision = await manager.revision(await manager.artifact())
    lost, kept = await manager.folder(owner), await manager.folder(owner)
    await manager.add(
        VFolderGrant(vfolder_id=kept.id, user_id=requester.id, permission=VFolderPermission.READ_WRITE)
    )
    for folder in (lost, kept):
        await a_task(manager, requester, revision, folder)
    query = """{ importTasks { edges { node { destination { ... on VFolderDestination {
                 vfolder { name permission usage { usedBytes } } } } } } } }"""
    data = await manager.ask(query, by=requester)
    found = [edge["node"]["destination"]["vfolder"] for edge in data["importTasks"]["edges"]]
    assert sorted(found, key=lambda each: str(each["permission"])) == [
        {"name": lost.name, "permission": "READ_ONLY", "usage": None},
        {"name": kept.name, "permission": "READ_WRITE", "usage": {"usedBytes": "5000000000"}},
    ]


async def test_the_newest_task_comes_first_and_lists_can_be_narrowed(manager: Manager) -> None:
    artifact = await manager.artifact()
    one, two = await manager.revision(artifact, "v1"), await manager.revision(artifact, "v2")
    folder = await manager.folder(manager.admin)
    oldest = await a_task(manager, manager.admin, one, folder, created_at=MOMENT)
    newest = await a_task(manager, manager.admin, two, folder, created_at=MOMENT + timedelta(hours=2))
    stored = await a_task(
        manager,
        manager.admin,
        one,
        None,
        created_at=MOMENT + timedelta(hours=1),
        status=ImportTaskStatus.SUCCEEDED,
        finished_at=MOMENT,
    )
    cases: list[tuple[Json, list[ImportTask]]] = [
        ({}, [newest, stored, oldest]),
        ({"status": ["SUCCEEDED"]}, [stored]),
        ({"status": ["PENDING", "SUCCEEDED"]}, [newest, stored, oldest]),
        ({"status": []}, []),
        ({"status": None, "revision": None, "folder": None}, [newest, stored, oldest]),
        ({"revision": global_id("ArtifactRevision", one.id)}, [stored, oldest]),
        ({"folder": str(folder.id)}, [newest, oldest]),
        ({"folder": str(folder.id), "revision": str(two.id)}, [newest]),
        ({"folder": str(uuid4())}, []),
    ]
    for arguments, tasks in cases:
        data = await manager.ask(LIST, arguments)
        assert ids(data) == [global_id("ImportTask", task.id) for task in tasks], arguments
        assert data["importTasks"]["count"] == len(tasks)
    wrong_ids: list[tuple[Json, str]] = [
        ({"folder": "nonsense"}, "vfolderId"),
        ({"folder": ""}, "vfolderId"),
        ({"revision": str(folder.id) + "x"}, "artifactRevisionId"),
    ]
    for arguments, field in wrong_ids:
        error = await manager.refusal(LIST, arguments)
        assert error["extensions"] == {"code": "BAD_REQUEST", "field": field}


async def test_a_cancel_is_passed_on_and_leaves_what_has_ended(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact())
    folder = await manager.folder(manager.admin)
    running = await a_task(manager, manager.admin, revision, folder, status=ImportTaskStatus.RUNNING)
    ended = await a_task(
        manager,
        manager.admin,
        revision,
        folder,
        status=ImportTaskStatus.SUCCEEDED,
        finished_at=MOMENT,
    )
    for task, status in ((running, "RUNNING"), (ended, "SUCCEEDED")):
        data = await manager.ask(CANCEL, {"id": global_id("ImportTask", task.id)})
        assert data["cancelImportTask"]["task"] == {
            "id": global_id("ImportTask", task.id),
            "status": status,
        }
    assert manager.proxy.cancelled == [running.id]


async def test_what_follows_a_mutation_reads_its_outcome(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact(), status=ArtifactStatus.PULLING)
    before = {"ordered_at": None, "status_before": ArtifactStatus.SCANNED}
    task = await a_task(manager, manager.admin, revision, None, **before)
    query = """mutation($task: ID!, $revision: ID!) {
      first: cancelImportTask(input: {taskId: $task}) { task { status artifactRevision { status } } }
      second: importArtifacts(input: {artifactRevisionIds: [$revision]}) {
        tasks { task { status artifactRevision { status } } } } }"""
    data = await manager.ask(query, {"task": str(task.id), "revision": str(revision.id)})
    assert data["first"]["task"] == {"status": "CANCELLED", "artifactRevision": {"status": "SCANNED"}}
    (entry,) = data["second"]["tasks"]
    assert entry["task"] == {"status": "PENDING", "artifactRevision": {"status": "PULLING"}}


async def test_a_list_of_tasks_costs_the_same_for_one_and_for_many(manager: Manager) -> None:
    query = """{ importTasks(first: 50) { count edges { node { id requestedBy { email }
        artifactRevision { version artifact { name registry { name } } }
        destination { __typename ... on VFolderDestination { vfolder { name permission project { name } } } }
    } } } }"""

    async def cost() -> int:
        with manager.statements() as seen:
            await manager.ask(query)
        return len(seen)

    folder = await manager.folder(manager.admin)
    await a_task(manager, manager.admin, await manager.revision(await manager.artifact()), folder)
    one = await cost()
    for index in range(20):
        revision = await manager.revision(await manager.artifact(f"org/{index}"))
        person = await manager.person()
        await a_task(manager, person, revision, await manager.folder(manager.admin))
    assert await cost() == one
    # The caller, the page, its count, the users, revisions, artifacts, registries and folders.
    assert one == 8
    assert isinstance((await manager.rows(ImportTask))[0][0], UUID)
