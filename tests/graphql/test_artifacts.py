from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from manager.graphql.ids import global_id
from manager.models import (
    Artifact,
    ArtifactRevision,
    ArtifactStatus,
    ImportTask,
    VFolderGrant,
    VFolderPermission,
)
from tests.graphql.served import COMMIT, Json, Manager

pytestmark = pytest.mark.anyio

IMPORT = """mutation($input: ImportArtifactsInput!) { importArtifacts(input: $input) {
  artifactRevisions { count edges { cursor node { id version } }
                      pageInfo { hasNextPage hasPreviousPage startCursor endCursor } }
  tasks { taskId artifactRevision { id } task { id status path requestId requestedBy { id }
    destination { __typename ... on VFolderDestination { vfolder { id permission } }
                  ... on ArtifactStorageDestination { storageName } } } }
} }"""
SCAN_MODELS = """mutation($input: ScanArtifactModelsInput!) { scanArtifactModels(input: $input) {
  artifactRevision { count edges { node { version digest size readme artifact { name } } }
                     pageInfo { hasNextPage hasPreviousPage } } } }"""
SCAN = "mutation($input: ScanArtifactsInput!) { scanArtifacts(input: $input) { artifacts { name extra } } }"
REPORT: Json = {
    "verdict": "blocked",
    "verifiers": [
        {
            "name": "pickle",
            "status": "blocked",
            "version": "1",
            "scanned": 3,
            "infected": 1,
            "skipped": 2,
            "started_at": "2026-01-02T03:04:05Z",
            "duration": 0.5,
            "findings": [
                {
                    "file": "a.bin",
                    "rule": "global",
                    "category": "code",
                    "severity": "high",
                    "message": "os.system",
                }
            ],
        }
    ],
}


def a_model(name: str, *versions: str) -> Json:
    revisions = [
        {"name": version, "commit": COMMIT, "size": 5_000_000_000, "readme": f"# {version}"}
        for version in versions
    ]
    return {"model_id": name, "description": "a model", "likes": 3, "tags": ["x"], "revisions": revisions}


async def test_every_field_of_an_artifact_and_its_revision(manager: Manager) -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    artifact = await manager.artifact(
        description="text", extra={"likes": [1]}, scanned_at=moment, updated_at=moment
    )
    revision = await manager.revision(
        artifact,
        size=5_000_000_000,
        readme="# hello",
        status=ArtifactStatus.AVAILABLE,
        verification=REPORT,
        created_at=moment,
        updated_at=moment,
    )
    data = await manager.ask(
        """query($id: ID!) { artifactRevision(id: $id) {
          id status remoteStatus version readme size createdAt updatedAt digest
          verificationResult { verifiers { name result { success infectedCount scannedAt scanTime scannedCount error
                                                         metadata { entries { key value } } } } }
          artifact { id name type description readonly extra scannedAt updatedAt availability
                     registry { name url } source { name url } }
        } }""",
        {"id": str(revision.id)},
    )
    found = data["artifactRevision"]
    (verifier,) = found.pop("verificationResult")["verifiers"]
    facts = {entry["key"]: entry["value"] for entry in verifier["result"].pop("metadata")["entries"]}
    assert '"os.system"' in facts.pop("finding.0")
    assert facts == {"status": "blocked", "version": "1", "skipped": "2"}
    assert verifier == {
        "name": "pickle",
        "result": {
            "success": False,
            "infectedCount": 1,
            "scannedAt": "2026-01-02T03:04:05+00:00",
            "scanTime": 0.5,
            "scannedCount": 3,
            "error": None,
        },
    }
    hub = {"name": "hub", "url": "http://hub.invalid"}
    written = "2026-01-02T03:04:05.678901+00:00"
    assert found == {
        "id": global_id("ArtifactRevision", revision.id),
        "status": "AVAILABLE",
        "remoteStatus": None,
        "version": "main",
        "readme": "# hello",
        "size": "5000000000",
        "createdAt": written,
        "updatedAt": written,
        "digest": COMMIT,
        "artifact": {
            "id": global_id("Artifact", artifact.id),
            "name": "org/model",
            "type": "MODEL",
            "description": "text",
            "readonly": True,
            "extra": {"likes": [1]},
            "scannedAt": written,
            "updatedAt": written,
            "availability": "ALIVE",
            "registry": hub,
            "source": hub,
        },
    }


async def test_an_id_is_plain_or_global(manager: Manager) -> None:
    artifact = await manager.artifact()
    for key in (
        str(artifact.id),
        artifact.id.hex,
        str(artifact.id).upper(),
        global_id("Artifact", artifact.id),
    ):
        data = await manager.ask("query($id: ID!) { artifact(id: $id) { name } }", {"id": key})
        assert data == {"artifact": {"name": "org/model"}}, key


async def test_what_is_not_there_is_null(manager: Manager) -> None:
    for field in ("artifact", "artifactRevision", "vfolder", "importTask"):
        query = f"query($id: ID!) {{ {field}(id: $id) {{ id }} }}"
        assert await manager.ask(query, {"id": str(uuid4())}) == {field: None}


async def test_a_malformed_id_is_refused_by_name(manager: Manager) -> None:
    for field in ("artifact", "artifactRevision", "vfolder", "importTask"):
        for wrong in ("", "x", "../..", "VXNlcjp4", global_id("User", uuid4()), f"{uuid4()} ", "é", "\0"):
            error = await manager.refusal(f"query($id: ID!) {{ {field}(id: $id) {{ id }} }}", {"id": wrong})
            assert error["extensions"] == {"code": "BAD_REQUEST", "field": "id"}, (field, wrong)
            assert "pass a UUID or the id of a" in error["message"]


async def test_an_import_answers_in_the_order_of_the_request(manager: Manager) -> None:
    artifact = await manager.artifact()
    revisions = [await manager.revision(artifact, f"v{number}") for number in range(4)]
    asked = [revisions[index] for index in (2, 0, 3, 1)]
    folder = await manager.folder(manager.admin)
    ids = [str(asked[0].id), *(global_id("ArtifactRevision", each.id) for each in asked[1:])]
    data = await manager.ask(
        IMPORT, {"input": {"artifactRevisionIds": ids, "vfolderId": global_id("VFolder", folder.id)}}
    )
    payload = data["importArtifacts"]
    shown = payload["artifactRevisions"]
    assert [edge["node"]["version"] for edge in shown["edges"]] == [each.version for each in asked]
    assert shown["count"] == 4
    assert shown["pageInfo"] == {
        "hasNextPage": False,
        "hasPreviousPage": False,
        "startCursor": shown["edges"][0]["cursor"],
        "endCursor": shown["edges"][-1]["cursor"],
    }
    wanted = [global_id("ArtifactRevision", each.id) for each in asked]
    assert [task["artifactRevision"]["id"] for task in payload["tasks"]] == wanted
    for entry, revision in zip(payload["tasks"], asked, strict=True):
        task_id = UUID(entry["taskId"])
        assert str(task_id) == entry["taskId"]
        assert entry["task"]["id"] == global_id("ImportTask", task_id)
        assert entry["task"]["path"] == f"org/model/{revision.version}"
        assert entry["task"]["destination"]["vfolder"] == {
            "id": global_id("VFolder", folder.id),
            "permission": "RW_DELETE",
        }
        assert manager.proxy.orders[task_id].model.revision == revision.version


async def test_the_request_id_goes_the_whole_way(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact())
    folder = await manager.folder(manager.admin)
    response = await manager.http.post(
        "/graphql",
        json={
            "query": IMPORT,
            "variables": {"input": {"artifactRevisionIds": [str(revision.id)], "vfolderId": str(folder.id)}},
        },
        headers={"Authorization": f"Bearer {manager.admin.token}", "X-Request-Id": "the-walk"},
    )
    (entry,) = response.json()["data"]["importArtifacts"]["tasks"]
    assert entry["task"]["requestId"] == "the-walk"
    assert manager.proxy.orders[UUID(entry["taskId"])].request_id == "the-walk"


async def test_nothing_to_do_makes_no_task(manager: Manager) -> None:
    artifact = await manager.artifact()
    stored = await manager.revision(artifact, "v1", status=ArtifactStatus.AVAILABLE, stored_commit=COMMIT)
    fresh = await manager.revision(artifact, "v2")
    asked = {"artifactRevisionIds": [str(stored.id), str(fresh.id)]}
    nothing, task = (await manager.ask(IMPORT, {"input": asked}))["importArtifacts"]["tasks"]
    assert (nothing["taskId"], nothing["task"]) == (None, None)
    assert task["task"]["destination"] == {
        "__typename": "ArtifactStorageDestination",
        "storageName": "archive",
    }
    forced = await manager.ask(IMPORT, {"input": asked | {"options": {"force": True}}})
    assert all(entry["taskId"] for entry in forced["importArtifacts"]["tasks"])


async def test_a_refused_import_names_the_field_and_changes_nothing(manager: Manager) -> None:
    person, stranger = await manager.person(), await manager.person()
    artifact = await manager.artifact()
    one, two = await manager.revision(artifact, "v1"), await manager.revision(artifact, "v2")
    mine, foreign = await manager.folder(person), await manager.folder(stranger)
    read_only = await manager.folder(stranger)
    await manager.add(
        VFolderGrant(vfolder_id=read_only.id, user_id=person.id, permission=VFolderPermission.READ_ONLY)
    )
    good = {"artifactRevisionIds": [str(one.id)], "vfolderId": str(mine.id)}
    ids = "input.artifactRevisionIds"
    refused: list[tuple[Json, str, str]] = [
        ({"artifactRevisionIds": []}, "BAD_REQUEST", ids),
        ({"artifactRevisionIds": [str(one.id), "nonsense"]}, "BAD_REQUEST", f"{ids}[1]"),
        ({"artifactRevisionIds": [global_id("Artifact", one.id)]}, "BAD_REQUEST", f"{ids}[0]"),
        ({"artifactRevisionIds": [str(one.id), str(uuid4())]}, "NOT_FOUND", f"{ids}[1]"),
        (
            {"artifactRevisionIds": [str(one.id), str(two.id), global_id("ArtifactRevision", one.id)]},
            "BAD_REQUEST",
            f"{ids}[2]",
        ),
        ({"vfolderId": "nonsense"}, "BAD_REQUEST", "input.vfolderId"),
        ({"vfolderId": str(uuid4())}, "NOT_FOUND", "input.vfolderId"),
        ({"vfolderId": str(foreign.id)}, "NOT_FOUND", "input.vfolderId"),
        ({"vfolderId": str(read_only.id)}, "FORBIDDEN", "input.vfolderId"),
        ({"options": {"path": "../out"}}, "BAD_REQUEST", "input.options.path"),
        ({"options": {"path": "/etc"}}, "BAD_REQUEST", "input.options.path"),
        ({"options": {"path": "a/../b"}}, "BAD_REQUEST", "input.options.path"),
        (
            {"artifactRevisionIds": [str(one.id), str(two.id)], "options": {"path": "both"}},
            "BAD_REQUEST",
            "input.options.path",
        ),
        ({"vfolderId": None, "options": {"path": "somewhere"}}, "BAD_REQUEST", "input.options.path"),
        (
            {"vfolderId": None, "options": {"onConflict": "OVERWRITE"}},
            "BAD_REQUEST",
            "input.options.onConflict",
        ),
    ]
    before = await manager.rows(ArtifactRevision)
    for change, code, field in refused:
        body = await manager.post(IMPORT, {"input": good | change}, by=person)
        (error,) = body["errors"]
        assert body["data"] == {"importArtifacts": None}
        assert error["extensions"] == {"code": code, "field": field}, change
        assert len(error["message"]) > 20, error
    assert await manager.rows(ImportTask) == []
    assert await manager.rows(ArtifactRevision) == before
    assert manager.proxy.orders == {}
    assert (await manager.ask(IMPORT, {"input": good}, by=person))["importArtifacts"]["tasks"][0]["taskId"]


async def test_the_artifact_storage_is_not_everybodys(manager: Manager) -> None:
    person = await manager.person()
    revision = await manager.revision(await manager.artifact())
    error = await manager.refusal(IMPORT, {"input": {"artifactRevisionIds": [str(revision.id)]}}, by=person)
    assert error["extensions"]["code"] == "FORBIDDEN"
    assert await manager.rows(ImportTask) == []


async def test_a_proxy_that_is_down_leaves_the_task_pending(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact())
    folder = await manager.folder(manager.admin)
    manager.proxy.down = True
    data = await manager.ask(
        IMPORT, {"input": {"artifactRevisionIds": [str(revision.id)], "vfolderId": str(folder.id)}}
    )
    assert data["importArtifacts"]["tasks"][0]["task"]["status"] == "PENDING"


async def test_an_import_of_many_costs_what_an_import_of_one_does(manager: Manager) -> None:
    artifact = await manager.artifact()
    folder = await manager.folder(manager.admin)
    manager.proxy.down = True
    query = IMPORT.replace(
        "artifactRevision { id }", "artifactRevision { id artifact { name registry { url } } }"
    )

    async def cost(number: int) -> int:
        ids = [str((await manager.revision(artifact, f"{number}-{index}")).id) for index in range(number)]
        with manager.statements() as seen:
            await manager.ask(query, {"input": {"artifactRevisionIds": ids, "vfolderId": str(folder.id)}})
        return len(seen)

    one, many = await cost(1), await cost(60)
    assert one == many, "statements for 1 and for 60 revisions"


async def test_a_scan_of_models_shows_exactly_what_it_found(manager: Manager) -> None:
    await manager.revision(await manager.artifact("org/other"), "main")
    manager.proxy.models = {"org/b": a_model("org/b", "main", "v1"), "org/a": a_model("org/a", "main")}
    data = await manager.ask(SCAN_MODELS, {"input": {"models": [{"modelId": "org/b"}, {"modelId": "org/a"}]}})
    found = data["scanArtifactModels"]["artifactRevision"]
    names = [(edge["node"]["artifact"]["name"], edge["node"]["version"]) for edge in found["edges"]]
    assert names == [("org/b", "main"), ("org/b", "v1"), ("org/a", "main")]
    assert found["count"] == 3
    assert found["pageInfo"] == {"hasNextPage": False, "hasPreviousPage": False}
    assert found["edges"][0]["node"]["size"] == "5000000000"
    assert found["edges"][0]["node"]["readme"] == "# main"


async def test_a_scan_searches(manager: Manager) -> None:
    manager.proxy.models = {"org/b": a_model("org/b", "main"), "org/a": a_model("org/a", "main")}
    data = await manager.ask(SCAN, {"input": {"limit": 5, "search": "org"}})
    assert [artifact["name"] for artifact in data["scanArtifacts"]["artifacts"]] == ["org/b", "org/a"]
    assert data["scanArtifacts"]["artifacts"][0]["extra"]["likes"] == 3


async def test_a_refused_scan_names_the_field_and_leaves_no_row(manager: Manager) -> None:
    models = "input.models"
    refused: list[tuple[str, Json, str, str | None]] = [
        (SCAN_MODELS, {"models": []}, "BAD_REQUEST", models),
        (SCAN_MODELS, {"models": [{"modelId": "../x"}]}, "BAD_REQUEST", f"{models}[0].modelId"),
        (SCAN_MODELS, {"models": [{"modelId": "o/n"}]}, "SOURCE_NOT_FOUND", f"{models}[0]"),
        (
            SCAN_MODELS,
            {"models": [{"modelId": "o/n"}], "registryId": str(uuid4())},
            "NOT_FOUND",
            "input.registryId",
        ),
        (SCAN, {"limit": 0}, "BAD_REQUEST", "input.limit"),
        (SCAN, {"limit": 5, "registryId": "x"}, "BAD_REQUEST", "input.registryId"),
        (SCAN, {"limit": 5, "registryId": str(uuid4())}, "NOT_FOUND", "input.registryId"),
    ]
    for query, asked, code, field in refused:
        error = await manager.refusal(query, {"input": asked})
        assert error["extensions"] == {"code": code, "field": field}, asked
    manager.proxy.down = True
    error = await manager.refusal(SCAN, {"input": {"limit": 5}})
    assert error["extensions"]["code"] == "UNAVAILABLE"
    assert await manager.rows(Artifact) == []


async def test_scans_are_for_administrators(manager: Manager) -> None:
    person = await manager.person()
    for query, asked in ((SCAN, {"limit": 5}), (SCAN_MODELS, {"models": [{"modelId": "o/n"}]})):
        error = await manager.refusal(query, {"input": asked}, by=person)
        assert error["extensions"] == {"code": "FORBIDDEN"}


async def test_cancel_of_a_revision_is_that_of_the_artifact_storage(manager: Manager) -> None:
    cancel = """mutation($input: CancelArtifactInput!) { cancelImportArtifact(input: $input) {
                  artifactRevision { version status } } }"""
    revision = await manager.revision(await manager.artifact())
    folder = await manager.folder(manager.admin)
    asked = {"artifactRevisionId": global_id("ArtifactRevision", revision.id)}
    ids = {"artifactRevisionIds": [str(revision.id)]}
    into_folder = await manager.ask(IMPORT, {"input": ids | {"vfolderId": str(folder.id)}})
    error = await manager.refusal(cancel, {"input": asked})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.artifactRevisionId"}
    stored = await manager.ask(IMPORT, {"input": ids})
    data = await manager.ask(cancel, {"input": asked})
    assert data["cancelImportArtifact"]["artifactRevision"]["version"] == "main"
    assert manager.proxy.cancelled == [UUID(stored["importArtifacts"]["tasks"][0]["taskId"])]
    assert UUID(into_folder["importArtifacts"]["tasks"][0]["taskId"]) not in manager.proxy.cancelled
