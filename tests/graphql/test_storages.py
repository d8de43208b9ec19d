from uuid import UUID

import pytest

from manager.graphql.ids import parse_id
from manager.models import ArtifactStatus, ArtifactStorage, AuditEntry
from tests.graphql.served import COMMIT, Json, Manager

pytestmark = pytest.mark.anyio

CREATE = """mutation($input: CreateObjectStorageInput!) { createObjectStorage(input: $input) {
  objectStorage { id name host accessKey secretKey endpoint region } } }"""
UPDATE = """mutation($input: UpdateObjectStorageInput!) { updateObjectStorage(input: $input) {
  objectStorage { id name host region } } }"""
DELETE = "mutation($input: DeleteObjectStorageInput!) { deleteObjectStorage(input: $input) { id } }"
CREATE_VFS = """mutation($input: CreateVFSStorageInput!) { createVFSStorage(input: $input) {
  vfsStorage { id name host basePath } } }"""
UPDATE_VFS = (
    "mutation($input: UpdateVFSStorageInput!) { updateVFSStorage(input: $input) { vfsStorage { basePath } } }"
)
DELETE_VFS = "mutation($input: DeleteVFSStorageInput!) { deleteVFSStorage(input: $input) { id } }"
REGISTER = (
    "mutation($input: RegisterStorageNamespaceInput!) { registerStorageNamespace(input: $input) { id } }"
)
UNREGISTER = (
    "mutation($input: UnregisterStorageNamespaceInput!) { unregisterStorageNamespace(input: $input) { id } }"
)
IMPORT = """mutation($id: ID!, $storage: String) { importArtifacts(input: {
  artifactRevisionIds: [$id], options: {storage: $storage}}) { tasks { taskId task { destination {
  ... on ArtifactStorageDestination { storageName } } } } } }"""
MINIO: Json = {
    "name": "minio",
    "host": "local",
    "accessKey": "planted-access",
    "secretKey": "planted-secret",
    "endpoint": "http://minio.example:9000",
    "region": "eu-central-1",
}
SHELF: Json = {"name": "shelf", "host": "local", "basePath": "/srv/shelf/"}


async def create(manager: Manager, **changes: str) -> tuple[str, UUID]:
    data = await manager.ask(CREATE, {"input": MINIO | changes})
    key = data["createObjectStorage"]["objectStorage"]["id"]
    return key, parse_id(key, "ObjectStorage", field="id")


async def register(manager: Manager, storage: UUID, namespace: str = "models") -> None:
    data = await manager.ask(REGISTER, {"input": {"storageId": str(storage), "namespace": namespace}})
    assert data["registerStorageNamespace"]["id"] == str(storage)


async def test_a_bucket_of_an_entered_storage_can_be_imported_into(manager: Manager) -> None:
    key, storage = await create(manager)
    await register(manager, storage)
    bucket = {
        "type": "s3",
        "name": "minio.models",
        "endpoint": "http://minio.example:9000",
        "region": "eu-central-1",
        "bucket": "models",
        "access_key": "planted-access",
        "secret_key": "planted-secret",
    }
    assert manager.proxy.configuration["artifact_storages"] == [bucket]
    # First the storage was tried, then the bucket.
    assert [check["artifact_storage"]["bucket"] for check in manager.proxy.checks] == [None, "models"]
    revision = await manager.revision(await manager.artifact())
    data = await manager.ask(IMPORT, {"id": str(revision.id), "storage": "local:minio.models"})
    (task,) = data["importArtifacts"]["tasks"]
    assert task["task"]["destination"] == {"storageName": "minio.models"}
    (order,) = manager.proxy.orders.values()
    told = order.storage_step_mappings.model_dump()
    # No verifier could read a bucket's objects.
    assert {step: target["storage_name"] for step, target in told.items()} == {
        "download": "archive",
        "verify": "archive",
        "archive": "minio.models",
    }
    # Into two storages at a time it cannot go.
    error = await manager.refusal(IMPORT, {"id": str(revision.id)})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.artifactRevisionIds[0]"}
    error = await manager.refusal(DELETE, {"input": {"id": key}})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.id"}


async def test_a_storage_that_holds_revisions_stays_as_it_is(manager: Manager) -> None:
    key, storage = await create(manager)
    await register(manager, storage)
    place = {"proxy": "local", "storage_name": "minio.models", "path": "org/model/main"}
    await manager.revision(
        await manager.artifact(), stored_commit=COMMIT, stored_in=place, status=ArtifactStatus.AVAILABLE
    )
    for change in ({"name": "other"}, {"endpoint": "http://elsewhere.example"}):
        error = await manager.refusal(UPDATE, {"input": {"id": key} | change})
        assert error["extensions"] == {"code": "CONFLICT", "field": f"input.{next(iter(change))}"}
    namespace = {"storageId": str(storage), "namespace": "models"}
    error = await manager.refusal(UNREGISTER, {"input": namespace})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.namespace"}
    error = await manager.refusal(DELETE, {"input": {"id": key}})
    assert error["extensions"]["code"] == "CONFLICT"
    # What does not move it can change.
    await manager.ask(UPDATE, {"input": {"id": key, "secretKey": "planted-new"}})
    (told,) = manager.proxy.configuration["artifact_storages"]
    assert (told["access_key"], told["secret_key"]) == ("planted-access", "planted-new")


async def test_a_revision_goes_where_no_other_copy_is(manager: Manager) -> None:
    place = {"proxy": "local", "storage_name": "archive", "path": "org/model/main"}
    revision = await manager.revision(
        await manager.artifact(), stored_commit=COMMIT, stored_in=place, status=ArtifactStatus.AVAILABLE
    )
    error = await manager.refusal(IMPORT, {"id": str(revision.id), "storage": "local:minio.models"})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.artifactRevisionIds[0]"}
    data = await manager.ask(IMPORT, {"id": str(revision.id)})
    assert data["importArtifacts"]["tasks"] == [{"taskId": None, "task": None}]


async def test_secrets_are_masked_and_sealed(manager: Manager) -> None:
    data = await manager.ask(CREATE, {"input": MINIO})
    created = data["createObjectStorage"]["objectStorage"]
    assert (created["accessKey"], created["secretKey"]) == ("********", "********")
    assert "planted" not in str(await manager.rows(ArtifactStorage)) + str(await manager.rows(AuditEntry))


async def test_storages_and_namespaces_are_listed(manager: Manager) -> None:
    for name in ("b-store", "a-store"):
        _, storage = await create(manager, name=name)
        for namespace in ("models", "archive"):
            await register(manager, storage, namespace)
    query = """{ objectStorages { count edges { node { name namespaces(first: 1) {
      count edges { node { id storageId namespace } } } } } } }"""
    with manager.statements() as statements:
        found = (await manager.ask(query))["objectStorages"]
    assert found["count"] == 2
    assert [edge["node"]["name"] for edge in found["edges"]] == ["a-store", "b-store"]
    for edge in found["edges"]:
        assert edge["node"]["namespaces"]["count"] == 2
        assert [one["node"]["namespace"] for one in edge["node"]["namespaces"]["edges"]] == ["archive"]
    # The token, the page, its count, the namespaces of all storages, and their counts.
    assert len(statements) == 5


async def test_a_directory_is_a_storage_by_its_own_name(manager: Manager) -> None:
    data = await manager.ask(CREATE_VFS, {"input": SHELF})
    created = data["createVFSStorage"]["vfsStorage"]
    assert (created["host"], created["basePath"]) == ("local", "/srv/shelf")
    storage = parse_id(created["id"], "VFSStorage", field="id")
    await register(manager, storage, "team-a")
    told = {one["name"]: one["base_path"] for one in manager.proxy.configuration["artifact_storages"]}
    assert told == {"shelf": "/srv/shelf", "shelf.team-a": "/srv/shelf/team-a"}
    await manager.ask(UPDATE_VFS, {"input": {"id": created["id"], "basePath": "/srv/other"}})
    await manager.ask(UNREGISTER, {"input": {"storageId": str(storage), "namespace": "team-a"}})
    told = {one["name"]: one["base_path"] for one in manager.proxy.configuration["artifact_storages"]}
    assert told == {"shelf": "/srv/other"}
    found = await manager.ask(
        "query($id: ID!) { vfsStorage(id: $id) { name } vfsStorages { count } }", {"id": created["id"]}
    )
    assert found == {"vfsStorage": {"name": "shelf"}, "vfsStorages": {"count": 1}}
    await manager.ask(DELETE_VFS, {"input": {"id": created["id"]}})
    assert manager.proxy.configuration["artifact_storages"] == []


async def test_two_storages_have_no_directory_in_common(manager: Manager) -> None:
    await manager.ask(CREATE_VFS, {"input": SHELF})
    error = await manager.refusal(CREATE_VFS, {"input": SHELF | {"name": "other"}})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.basePath"}
    # A name that is taken is refused before the proxy makes a directory for it.
    error = await manager.refusal(CREATE_VFS, {"input": SHELF | {"basePath": "/srv/other"}})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.name"}
    assert len(manager.proxy.checks) == 1


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"name": "a b"}, "BAD_REQUEST", "name"),
        ({"host": "nowhere"}, "CONFLICT", "host"),
        ({"basePath": "relative"}, "BAD_REQUEST", "basePath"),
        ({"basePath": "/a/../etc"}, "BAD_REQUEST", "basePath"),
        ({"basePath": "/"}, "BAD_REQUEST", "basePath"),
        ({"basePath": "/a\nb"}, "BAD_REQUEST", "basePath"),
    ],
)
async def test_nonsense_is_refused_by_its_name(manager: Manager, change: Json, code: str, field: str) -> None:
    error = await manager.refusal(CREATE_VFS, {"input": SHELF | change})
    assert error["extensions"] == {"code": code, "field": f"input.{field}"}
    assert manager.proxy.checks == []


@pytest.mark.parametrize("namespace", ["", "ab", "Upper", "a..b", "a/b", "-ab", "x" * 64])
async def test_a_namespace_is_the_name_of_a_bucket(manager: Manager, namespace: str) -> None:
    _, storage = await create(manager)
    error = await manager.refusal(REGISTER, {"input": {"storageId": str(storage), "namespace": namespace}})
    assert error["extensions"] == {"code": "BAD_REQUEST", "field": "input.namespace"}


async def test_what_the_proxy_cannot_use_is_not_kept(manager: Manager) -> None:
    fault = {"code": "FORBIDDEN", "message": "the storage refused the keys", "field": "secret_key"}
    manager.proxy.check_fault = (fault, 403)
    error = await manager.refusal(CREATE, {"input": MINIO})
    assert error["extensions"] == {"code": "FORBIDDEN", "field": "input.secretKey"}
    assert await manager.rows(ArtifactStorage) == []


async def test_names_of_storages_and_namespaces_do_not_meet(manager: Manager) -> None:
    _, storage = await create(manager)
    await register(manager, storage)
    for name in ("minio", "minio.models"):
        error = await manager.refusal(CREATE_VFS, {"input": SHELF | {"name": name}})
        assert error["extensions"] == {"code": "CONFLICT", "field": "input.name"}


async def test_storages_are_for_administrators(manager: Manager) -> None:
    person = await manager.person()
    for query in ("{ objectStorages { count } }", "{ vfsStorages { count } }"):
        assert (await manager.refusal(query, by=person))["extensions"]["code"] == "FORBIDDEN"
    for mutation, given in ((CREATE, MINIO), (CREATE_VFS, SHELF)):
        error = await manager.refusal(mutation, {"input": given}, by=person)
        assert error["extensions"]["code"] == "FORBIDDEN"
