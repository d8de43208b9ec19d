from typing import Any
from uuid import UUID, uuid4

import pytest

from manager.models import (
    ArtifactRevision,
    ArtifactStatus,
    ImportConflictPolicy,
    ImportTask,
    ImportTaskStatus,
)
from tests.graphql.served import COMMIT, Json, Manager

pytestmark = pytest.mark.anyio

PLACE = {"proxy": "local", "storage_name": "archive", "path": "org/model/main"}
CLEAN_UP = """mutation($ids: [ID!]!) { cleanupArtifactRevisions(input: {artifactRevisionIds: $ids}) {
  artifactRevisions { count edges { node { id status verificationResult { verifiers { name } } } } } } }"""
UPDATE = """mutation($input: UpdateArtifactInput!) { updateArtifact(input: $input) {
  artifact { description readonly } } }"""
DELETE = (
    "mutation($ids: [ID!]!) { deleteArtifacts(input: {artifactIds: $ids}) { artifacts { id availability } } }"
)
RESTORE = "mutation($ids: [ID!]!) { restoreArtifacts(input: {artifactIds: $ids}) { artifacts { id availability } } }"
IMPORT = "mutation($id: ID!) { importArtifacts(input: {artifactRevisionIds: [$id]}) { tasks { taskId } } }"
DOWNLOAD = "mutation($input: GetPresignedDownloadURLInput!) { getPresignedDownloadUrl(input: $input) { presignedUrl } }"
UPLOAD = "mutation($input: GetPresignedUploadURLInput!) { getPresignedUploadUrl(input: $input) { presignedUrl fields } }"
APPROVE = """mutation($id: ID!) { approveArtifactRevision(input: {artifactRevisionId: $id}) {
  artifactRevision { id status } } }"""
REJECT = """mutation($id: ID!) { rejectArtifactRevision(input: {artifactRevisionId: $id}) {
  artifactRevision { id status } } }"""
APPROVE_TASK = "mutation($id: ID!) { approveImportTask(input: {taskId: $id}) { task { id status } } }"
REJECT_TASK = """mutation($id: ID!, $reason: String) { rejectImportTask(input: {taskId: $id, reason: $reason}) {
  task { id status } } }"""


async def stored(manager: Manager, **values: Any) -> ArtifactRevision:
    artifact = await manager.artifact(**values)
    return await manager.revision(
        artifact, stored_commit=COMMIT, stored_in=PLACE, status=ArtifactStatus.AVAILABLE
    )


async def a_task(manager: Manager, revision: ArtifactRevision, **values: Any) -> ImportTask:
    task = ImportTask(
        **{
            "id": uuid4(),
            "request_id": "r",
            "requested_by_id": manager.admin.id,
            "artifact_revision_id": revision.id,
            "proxy": "local",
            "storage_name": "archive",
            "path": "org/model/main",
            "destination": "local:archive",
            "on_conflict": ImportConflictPolicy.FAIL,
            "order": {},
            "status_before": ArtifactStatus.SCANNED,
        }
        | values
    )
    await manager.add(task)
    return task


async def revision_row(manager: Manager, key: UUID) -> ArtifactRevision:
    async with manager.database.read() as session:
        return await session.get_one(ArtifactRevision, key)


# Clean-up.


async def test_a_clean_up_removes_what_the_storage_holds(manager: Manager) -> None:
    revision = await stored(manager)
    data = await manager.ask(CLEAN_UP, {"ids": [str(revision.id)]})
    edges = data["cleanupArtifactRevisions"]["artifactRevisions"]["edges"]
    assert [edge["node"]["status"] for edge in edges] == ["SCANNED"]
    told = {"model_id": "org/model", "revision": "main", "path": "org/model/main"}
    assert manager.proxy.unpublished == [("archive", told)]
    row = await revision_row(manager, revision.id)
    assert (row.stored_commit, row.stored_in, row.cleanup) == (None, None, None)
    # It can be imported again, and cleaned up again, which does nothing.
    assert (await manager.ask(CLEAN_UP, {"ids": [str(revision.id)]}))["cleanupArtifactRevisions"]
    assert len(manager.proxy.unpublished) == 1
    data = await manager.ask(IMPORT, {"id": str(revision.id)})
    assert data["importArtifacts"]["tasks"][0]["taskId"] is not None


async def test_a_clean_up_is_refused_whole_while_an_import_runs(manager: Manager) -> None:
    free = await stored(manager)
    busy = await stored(manager, name="org/busy")
    await a_task(manager, busy)
    error = await manager.refusal(CLEAN_UP, {"ids": [str(free.id), str(busy.id)]})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.artifactRevisionIds[1]"}
    assert (await revision_row(manager, free.id)).status is ArtifactStatus.AVAILABLE
    assert manager.proxy.unpublished == []


async def test_an_import_into_a_folder_is_no_hindrance_and_not_touched(manager: Manager) -> None:
    revision = await stored(manager)
    folder = await manager.folder(manager.admin)
    await a_task(manager, revision, storage_name=None, vfolder_id=folder.id, destination="folder")
    await manager.ask(CLEAN_UP, {"ids": [str(revision.id)]})
    assert [name for name, _ in manager.proxy.unpublished] == ["archive"]
    assert manager.proxy.deleted == []


async def test_a_clean_up_that_the_proxy_does_not_answer_blocks_the_next_import(manager: Manager) -> None:
    revision = await stored(manager)
    manager.proxy.down = True
    await manager.ask(CLEAN_UP, {"ids": [str(revision.id)]})
    row = await revision_row(manager, revision.id)
    assert (row.status, row.cleanup) == (ArtifactStatus.SCANNED, PLACE)
    error = await manager.refusal(IMPORT, {"id": str(revision.id)})
    assert error["extensions"]["code"] == "CONFLICT"
    assert "still being removed" in error["message"]
    manager.proxy.down = False
    await manager.ask(CLEAN_UP, {"ids": [str(revision.id)]})
    assert (await revision_row(manager, revision.id)).cleanup is None


async def test_an_unknown_revision_is_not_cleaned_up(manager: Manager) -> None:
    error = await manager.refusal(CLEAN_UP, {"ids": [str(uuid4())]})
    assert error["extensions"] == {"code": "NOT_FOUND", "field": "input.artifactRevisionIds[0]"}
    error = await manager.refusal(CLEAN_UP, {"ids": []})
    assert error["extensions"]["code"] == "BAD_REQUEST"


# Approval.


async def waiting(manager: Manager) -> tuple[ArtifactRevision, ImportTask]:
    revision = await manager.revision(await manager.artifact(), status=ArtifactStatus.NEEDS_APPROVAL)
    task = await a_task(manager, revision, status=ImportTaskStatus.NEEDS_APPROVAL)
    return revision, task


async def test_an_approval_is_told_to_the_proxy(manager: Manager) -> None:
    revision, task = await waiting(manager)
    data = await manager.ask(APPROVE, {"id": str(revision.id)})
    assert data["approveArtifactRevision"]["artifactRevision"]["status"] == "NEEDS_APPROVAL"
    await manager.ask(APPROVE_TASK, {"id": str(task.id)})
    assert manager.proxy.decided == [(task.id, "approve"), (task.id, "approve")]
    for query in (REJECT, REJECT_TASK):
        key = revision.id if query is REJECT else task.id
        assert (await manager.refusal(query, {"id": str(key)}))["extensions"]["code"] == "CONFLICT"


async def test_a_rejection_outlives_a_proxy_that_is_away(manager: Manager) -> None:
    _, task = await waiting(manager)
    manager.proxy.down = True
    await manager.ask(REJECT_TASK, {"id": str(task.id), "reason": "not ours"})
    async with manager.database.read() as session:
        row = await session.get_one(ImportTask, task.id)
    assert (row.decision, row.decision_reason) == ("REJECTED", "not ours")


async def test_what_waits_for_nothing_is_not_decided(manager: Manager) -> None:
    revision = await stored(manager)
    task = await a_task(manager, revision, status=ImportTaskStatus.RUNNING)
    for query, key in ((APPROVE, revision.id), (REJECT, revision.id), (APPROVE_TASK, task.id)):
        assert (await manager.refusal(query, {"id": str(key)}))["extensions"]["code"] == "CONFLICT"
        assert (await manager.refusal(query, {"id": str(uuid4())}))["extensions"]["code"] == "NOT_FOUND"
    assert manager.proxy.decided == []


# Curation.


async def test_an_artifact_is_deleted_softly_and_restored(manager: Manager) -> None:
    revision = await stored(manager)
    key = str(revision.artifact_id)
    for _ in range(2):
        data = await manager.ask(DELETE, {"ids": [key]})
        assert data["deleteArtifacts"]["artifacts"][0]["availability"] == "DELETED"
    assert (await manager.refusal(IMPORT, {"id": str(revision.id)}))["extensions"]["code"] == "CONFLICT"
    alive = "{ artifacts(filter: {availability: [ALIVE]}) { count } artifacts2: artifacts { count } }"
    found = await manager.ask(alive)
    assert (found["artifacts"]["count"], found["artifacts2"]["count"]) == (0, 1)
    data = await manager.ask(RESTORE, {"ids": [key]})
    assert data["restoreArtifacts"]["artifacts"][0]["availability"] == "ALIVE"


async def test_an_unknown_artifact_deletes_none(manager: Manager) -> None:
    revision = await stored(manager)
    error = await manager.refusal(DELETE, {"ids": [str(revision.artifact_id), str(uuid4())]})
    assert error["extensions"] == {"code": "NOT_FOUND", "field": "input.artifactIds[1]"}
    found = await manager.ask("{ artifacts(filter: {availability: [ALIVE]}) { count } }")
    assert found["artifacts"]["count"] == 1


async def test_a_description_of_an_administrators_outlives_scans(manager: Manager) -> None:
    revision = {"name": "main", "commit": COMMIT, "size": 3}
    model: Json = {"model_id": "org/model", "description": "the hub's", "revisions": [revision]}
    manager.proxy.models["org/model"] = model
    scan = """mutation { scanArtifactModels(input: {models: [{modelId: "org/model"}]}) {
      artifactRevision { edges { node { artifact { id description } } } } } }"""

    async def scanned() -> Json:
        data = await manager.ask(scan)
        found: Json = data["scanArtifactModels"]["artifactRevision"]["edges"][0]["node"]["artifact"]
        return found

    artifact = await scanned()
    assert artifact["description"] == "the hub's"
    update = {"artifactId": artifact["id"], "description": "ours", "readonly": False}
    data = await manager.ask(UPDATE, {"input": update})
    assert data["updateArtifact"]["artifact"] == {"description": "ours", "readonly": False}
    assert (await scanned())["description"] == "ours"
    await manager.ask(UPDATE, {"input": {"artifactId": artifact["id"], "description": ""}})
    assert (await scanned())["description"] == "the hub's"


# URLs.


async def test_a_url_stays_beneath_the_revision(manager: Manager) -> None:
    revision = await stored(manager)
    person = await manager.person()
    given = {"artifactRevisionId": str(revision.id), "key": "a/b.bin", "expiration": 60}
    data = await manager.ask(DOWNLOAD, {"input": given}, by=person)
    assert data["getPresignedDownloadUrl"]["presignedUrl"] == "http://s3.invalid/org/model/main/a/b.bin"
    order = {"method": "GET", "path": "org/model/main", "key": "a/b.bin", "expires_seconds": 60}
    assert manager.proxy.presigned == [("archive", order)]
    for key in (
        "",
        "/",
        "/etc/passwd",
        "../other/main/x",
        "a/../../x",
        "a//b",
        "a\\b",
        ".stowage/x",
        "a\x00b",
    ):
        error = await manager.refusal(DOWNLOAD, {"input": given | {"key": key}}, by=person)
        assert error["extensions"] == {"code": "BAD_REQUEST", "field": "input.key"}, key
    for seconds in (0, -1, 604_801):
        error = await manager.refusal(DOWNLOAD, {"input": given | {"expiration": seconds}}, by=person)
        assert error["extensions"] == {"code": "BAD_REQUEST", "field": "input.expiration"}
    assert len(manager.proxy.presigned) == 1


async def test_only_what_is_stored_has_urls(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact())
    given = {"artifactRevisionId": str(revision.id), "key": "a"}
    error = await manager.refusal(DOWNLOAD, {"input": given})
    assert error["extensions"]["code"] == "CONFLICT"
    error = await manager.refusal(DOWNLOAD, {"input": given | {"artifactRevisionId": str(uuid4())}})
    assert error["extensions"]["code"] == "NOT_FOUND"


async def test_an_upload_wants_an_administrator_and_an_artifact_that_may_change(manager: Manager) -> None:
    revision = await stored(manager, readonly=False)
    frozen = await stored(manager, name="org/frozen")
    given = {"artifactRevisionId": str(revision.id), "key": "notes.md"}
    data = await manager.ask(UPLOAD, {"input": given})
    assert data["getPresignedUploadUrl"]["fields"] == '{"a": "b"}'
    person = await manager.person()
    assert (await manager.refusal(UPLOAD, {"input": given}, by=person))["extensions"]["code"] == "FORBIDDEN"
    error = await manager.refusal(UPLOAD, {"input": given | {"artifactRevisionId": str(frozen.id)}})
    assert error["extensions"]["code"] == "FORBIDDEN"


async def test_the_catalogue_is_kept_by_administrators(manager: Manager) -> None:
    person = await manager.person()
    revision, task = await waiting(manager)
    asked: list[tuple[str, Json]] = [
        (CLEAN_UP, {"ids": [str(revision.id)]}),
        (DELETE, {"ids": [str(revision.artifact_id)]}),
        (RESTORE, {"ids": [str(revision.artifact_id)]}),
        (UPDATE, {"input": {"artifactId": str(revision.artifact_id), "description": "x"}}),
        (APPROVE, {"id": str(revision.id)}),
        (REJECT, {"id": str(revision.id)}),
        (APPROVE_TASK, {"id": str(task.id)}),
        (REJECT_TASK, {"id": str(task.id)}),
    ]
    for query, variables in asked:
        error = await manager.refusal(query, variables, by=person)
        assert error["extensions"]["code"] == "FORBIDDEN", query
