from uuid import uuid4

import pytest

from manager.graphql.ids import global_id
from manager.models import ImportConflictPolicy, ImportTask, ImportTaskStatus, VFolderGrant, VFolderPermission
from tests.graphql.served import COMMIT, Json, Manager, Person

pytestmark = pytest.mark.anyio

PREVIEW = """query($input: ImportPreviewInput!) { importPreview(input: $input) {
  path size missing alreadyThere fits truncated conflicts { path reason }
  quota { limit used reserved free } } }"""
MODELS = """query($id: ID!, $first: Int, $after: String) { vfolder(id: $id) {
  models(first: $first, after: $after) { count pageInfo { hasNextPage endCursor } edges { node {
    artifact version path registry commit size fileCount importedAt importedBy taskId } } } } }"""
LIMIT = "mutation($input: SetQuotaInput!) { setQuota(input: $input) { quota { id } } }"


def kept(name: str, by: Person, **values: object) -> Json:
    return {
        "artifact": name,
        "version": "main",
        "path": f"{name}/main",
        "registry": "hub",
        "commit": COMMIT,
        "size": 5_000_000_000,
        "file_count": 3,
        "imported_at": "2026-01-02T03:04:05Z",
        "task_id": str(uuid4()),
        "requested_by": str(by.id),
    } | values


async def test_a_preview_says_what_comes_and_whether_it_fits(manager: Manager) -> None:
    person = await manager.person()
    folder = await manager.folder(person)
    revision = await manager.revision(await manager.artifact())
    ids = {
        "artifactRevisionId": global_id("ArtifactRevision", revision.id),
        "vfolderId": global_id("VFolder", folder.id),
    }
    manager.proxy.used[f"user:{person.id}"] = 995
    seen = (await manager.ask(PREVIEW, {"input": ids}, by=person))["importPreview"]
    assert seen == {
        "path": "org/model/main",
        "size": "10",
        "missing": "10",
        "alreadyThere": False,
        "fits": True,
        "truncated": False,
        "conflicts": [],
        "quota": {"limit": None, "used": "995", "reserved": "0", "free": None},
    }
    await manager.ask(LIMIT, {"input": {"userId": str(person.id), "limitBytes": "1000"}})
    manager.proxy.preview = {
        "total_bytes": 10,
        "missing_bytes": 6,
        "conflicts": [{"path": "mine/a", "reason": "it was not imported"}],
        "truncated": True,
    }
    plain = {"artifactRevisionId": str(revision.id), "vfolderId": str(folder.id)}
    seen = (await manager.ask(PREVIEW, {"input": plain | {"options": {"path": "mine"}}}, by=person))[
        "importPreview"
    ]
    assert seen == {
        "path": "mine",
        "size": "10",
        "missing": "6",
        "alreadyThere": False,
        "fits": False,
        "truncated": True,
        "conflicts": [{"path": "mine/a", "reason": "it was not imported"}],
        "quota": {"limit": "1000", "used": "995", "reserved": "0", "free": "5"},
    }
    model = {"model_id": "org/model", "revision": "main", "commit": COMMIT}
    assert manager.proxy.previewed == [
        {"registry_name": "hub", "model": model, "path": "org/model/main"},
        {"registry_name": "hub", "model": model, "path": "mine"},
    ]
    manager.proxy.preview = {"total_bytes": 10, "missing_bytes": 0}
    seen = (await manager.ask(PREVIEW, {"input": plain}, by=person))["importPreview"]
    assert (seen["alreadyThere"], seen["fits"]) == (True, True)
    assert await manager.rows(ImportTask) == []


async def test_a_guest_sees_the_room_of_the_folders_owner(manager: Manager) -> None:
    owner, guest = await manager.person(), await manager.person()
    folder = await manager.folder(owner)
    await manager.add(
        VFolderGrant(vfolder_id=folder.id, user_id=guest.id, permission=VFolderPermission.READ_WRITE)
    )
    await manager.ask(LIMIT, {"input": {"userId": str(owner.id), "limitBytes": "7"}})
    revision = await manager.revision(await manager.artifact())
    asked = {"artifactRevisionId": str(revision.id), "vfolderId": str(folder.id)}
    seen = (await manager.ask(PREVIEW, {"input": asked}, by=guest))["importPreview"]
    assert (seen["quota"]["free"], seen["fits"]) == ("7", False)


async def test_a_preview_is_refused_as_its_import_would_be(manager: Manager) -> None:
    person, stranger = await manager.person(), await manager.person()
    own, secret, read_only = [await manager.folder(each) for each in (person, stranger, stranger)]
    await manager.add(
        VFolderGrant(vfolder_id=read_only.id, user_id=person.id, permission=VFolderPermission.READ_ONLY)
    )
    revision = await manager.revision(await manager.artifact())
    good = {"artifactRevisionId": str(revision.id), "vfolderId": str(own.id)}
    refused: list[tuple[Json, str, str]] = [
        ({"artifactRevisionId": "x"}, "BAD_REQUEST", "input.artifactRevisionId"),
        ({"artifactRevisionId": str(uuid4())}, "NOT_FOUND", "input.artifactRevisionId"),
        ({"vfolderId": "x"}, "BAD_REQUEST", "input.vfolderId"),
        ({"vfolderId": str(secret.id)}, "NOT_FOUND", "input.vfolderId"),
        ({"vfolderId": str(read_only.id)}, "FORBIDDEN", "input.vfolderId"),
        ({"options": {"path": "../x"}}, "BAD_REQUEST", "input.options.path"),
        ({"options": {"path": ""}}, "BAD_REQUEST", "input.options.path"),
    ]
    for change, code, field in refused:
        error = await manager.refusal(PREVIEW, {"input": good | change}, by=person)
        assert error["extensions"] == {"code": code, "field": field}, change
        assert len(error["message"]) > 20
    assert manager.proxy.previewed == []
    manager.proxy.down = True
    error = await manager.refusal(PREVIEW, {"input": good}, by=person)
    assert error["extensions"] == {"code": "UNAVAILABLE"}


async def test_a_folders_models_come_in_pages(manager: Manager) -> None:
    person = await manager.person()
    folder = await manager.folder(person)
    manager.proxy.kept = [kept(f"org/model{number}", person) for number in range(5)]
    seen: list[str] = []
    after: str | None = None
    while True:
        data = await manager.ask(MODELS, {"id": str(folder.id), "first": 2, "after": after}, by=person)
        page = data["vfolder"]["models"]
        assert page["count"] == 5
        seen += [edge["node"]["artifact"] for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            break
        after = page["pageInfo"]["endCursor"]
    assert seen == [each["artifact"] for each in manager.proxy.kept]
    first = page["edges"][0]["node"]
    assert first == {
        "artifact": "org/model4",
        "version": "main",
        "path": "org/model4/main",
        "registry": "hub",
        "commit": COMMIT,
        "size": "5000000000",
        "fileCount": 3,
        "importedAt": "2026-01-02T03:04:05+00:00",
        "importedBy": person.row.email,
        "taskId": manager.proxy.kept[4]["task_id"],
    }
    for arguments, expected in (("last: 2", [3, 4]), ("limit: 2, offset: 1", [1, 2])):
        query = f"query($id: ID!) {{ vfolder(id: $id) {{ models({arguments}) {{ edges {{ node {{ artifact }} }} }} }} }}"
        data = await manager.ask(query, {"id": str(folder.id)}, by=person)
        found = [edge["node"]["artifact"] for edge in data["vfolder"]["models"]["edges"]]
        assert found == [f"org/model{number}" for number in expected]
    error = await manager.refusal(MODELS, {"id": str(folder.id), "after": "x"}, by=person)
    assert error["extensions"] == {"code": "BAD_REQUEST", "field": "after"}
    manager.proxy.down = True
    assert (await manager.ask(MODELS, {"id": str(folder.id)}, by=person))["vfolder"] == {"models": None}


async def test_a_manifest_names_people_to_those_who_may_see_the_import(manager: Manager) -> None:
    owner, guest, importer = await manager.person(), await manager.person(), await manager.person()
    folder = await manager.folder(owner)
    await manager.add(
        VFolderGrant(vfolder_id=folder.id, user_id=guest.id, permission=VFolderPermission.READ_ONLY)
    )
    revision = await manager.revision(await manager.artifact())
    task = ImportTask(
        id=uuid4(),
        request_id="r",
        requested_by_id=importer.id,
        artifact_revision_id=revision.id,
        proxy="local",
        vfolder_id=folder.id,
        path="org/model/main",
        destination="x",
        on_conflict=ImportConflictPolicy.FAIL,
        order={},
        status=ImportTaskStatus.SUCCEEDED,
    )
    await manager.add(task)
    # The second one was written by somebody who would like to know an address.
    manager.proxy.kept = [
        kept("org/a", importer, task_id=str(task.id)),
        kept("org/b", guest, task_id=str(task.id), requested_by=str(manager.admin.id)),
    ]

    async def named(by: Person) -> list[str | None]:
        data = await manager.ask(MODELS, {"id": str(folder.id)}, by=by)
        return [edge["node"]["importedBy"] for edge in data["vfolder"]["models"]["edges"]]

    assert await named(owner) == [importer.row.email, None]
    assert await named(guest) == [None, None]
    assert await named(manager.admin) == [importer.row.email, manager.admin.row.email]
