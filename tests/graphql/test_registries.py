from uuid import uuid4

import pytest

from manager.models import ArtifactAvailability, ArtifactRegistry, AuditEntry, ImportTask
from tests.graphql.served import Json, Manager

pytestmark = pytest.mark.anyio

CREATE = """mutation($input: CreateHuggingFaceRegistryInput!) { createHuggingfaceRegistry(input: $input) {
  huggingfaceRegistry { id name url token } } }"""
UPDATE = """mutation($input: UpdateHuggingFaceRegistryInput!) { updateHuggingfaceRegistry(input: $input) {
  huggingfaceRegistry { id name url token } } }"""
DELETE = (
    "mutation($input: DeleteHuggingFaceRegistryInput!) { deleteHuggingfaceRegistry(input: $input) { id } }"
)
CREATE_RESERVOIR = """mutation($input: CreateReservoirRegistryInput!) { createReservoirRegistry(input: $input) {
  reservoir { id name endpoint accessKey secretKey apiVersion remoteArtifactRegistries { count } } } }"""
MIRROR: Json = {"name": "mirror", "url": "https://mirror.example/hub", "token": "hf_planted"}
OTHER: Json = {
    "name": "other",
    "endpoint": "https://other.example",
    "accessKey": "planted-access",
    "secretKey": "planted-secret",
    "apiVersion": "v1",
}


async def create(manager: Manager, **changes: str) -> Json:
    data = await manager.ask(CREATE, {"input": MIRROR | changes})
    created: Json = data["createHuggingfaceRegistry"]["huggingfaceRegistry"]
    return created


async def test_a_registry_that_is_entered_is_handed_over_with_its_token(manager: Manager) -> None:
    created = await create(manager)
    assert created | {"id": ""} == {
        "id": "",
        "name": "mirror",
        "url": "https://mirror.example/hub",
        "token": "********",
    }
    told = {
        "name": "mirror",
        "type": "huggingface",
        "url": "https://mirror.example/hub",
        "token": "hf_planted",
    }
    assert manager.proxy.checks == [{"registry": told, "artifact_storage": None}]
    assert manager.proxy.configuration["registries"] == [told]
    again = await manager.ask(
        "query($id: ID!) { huggingfaceRegistry(id: $id) { id name url token } }", {"id": created["id"]}
    )
    assert again["huggingfaceRegistry"] == created


async def test_a_secret_is_nowhere_in_the_clear(manager: Manager) -> None:
    await create(manager)
    await manager.ask(CREATE_RESERVOIR, {"input": OTHER})
    rows = str(await manager.rows(ArtifactRegistry)) + str(await manager.rows(AuditEntry))
    assert "1:" in rows
    assert "planted" not in rows


async def test_a_registry_that_cannot_be_reached_is_not_kept(manager: Manager) -> None:
    fault = {"code": "SOURCE_FORBIDDEN", "message": "the registry answered 401", "field": "token"}
    manager.proxy.check_fault = (fault, 403)
    error = await manager.refusal(CREATE, {"input": MIRROR})
    assert error["extensions"] == {"code": "SOURCE_FORBIDDEN", "field": "input.token"}
    assert "the registry answered 401" in error["message"]
    assert len(await manager.rows(ArtifactRegistry)) == 1
    manager.proxy.down = True
    error = await manager.refusal(CREATE, {"input": MIRROR})
    assert error["extensions"]["code"] == "UNAVAILABLE"


async def test_a_change_keeps_what_it_does_not_name(manager: Manager) -> None:
    created = await create(manager)
    await manager.ask(UPDATE, {"input": {"id": created["id"], "url": "https://elsewhere.example"}})
    (told,) = manager.proxy.configuration["registries"]
    assert (told["url"], told["token"]) == ("https://elsewhere.example", "hf_planted")
    data = await manager.ask(UPDATE, {"input": {"id": created["id"], "token": None, "name": "renamed"}})
    assert data["updateHuggingfaceRegistry"]["huggingfaceRegistry"]["token"] is None
    (told,) = manager.proxy.configuration["registries"]
    assert (told["name"], told["token"]) == ("renamed", None)


async def test_a_name_is_given_once_until_its_registry_is_deleted(manager: Manager) -> None:
    created = await create(manager)
    for name in ("mirror", "hub"):
        error = await manager.refusal(CREATE, {"input": MIRROR | {"name": name}})
        assert error["extensions"] == {"code": "CONFLICT", "field": "input.name"}
    await manager.ask(DELETE, {"input": {"id": created["id"]}})
    assert manager.proxy.configuration["registries"] == []
    assert (await create(manager))["id"] != created["id"]


async def test_a_registry_in_use_is_not_deleted(manager: Manager) -> None:
    created = await create(manager)
    artifact = await manager.artifact("org/there", registry_id=await manager.registry_id("mirror"))
    error = await manager.refusal(DELETE, {"input": {"id": created["id"]}})
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.id"}
    artifact.availability = ArtifactAvailability.DELETED
    async with manager.database.begin() as session:
        await session.merge(artifact)
    await manager.ask(DELETE, {"input": {"id": created["id"]}})


async def test_a_registry_of_the_configuration_file_is_changed_there(manager: Manager) -> None:
    key = str(await manager.registry_id())
    for query in (UPDATE, DELETE):
        error = await manager.refusal(query, {"input": {"id": key}})
        assert error["extensions"] == {"code": "CONFLICT", "field": "input.id"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"url": "ftp://mirror.example"}, "url"),
        ({"url": "https://user:pass@mirror.example"}, "url"),
        ({"url": "https://mirror.example?x"}, "url"),
        ({"token": "two\nlines"}, "token"),
        ({"token": "x" * 5000}, "token"),
    ],
)
async def test_nonsense_is_refused_by_its_name(manager: Manager, change: Json, field: str) -> None:
    error = await manager.refusal(CREATE, {"input": MIRROR | change})
    assert error["extensions"] == {"code": "BAD_REQUEST", "field": f"input.{field}"}
    assert manager.proxy.checks == []


async def test_another_stowage_is_kept_and_nothing_comes_from_it(manager: Manager) -> None:
    data = await manager.ask(CREATE_RESERVOIR, {"input": OTHER})
    created = data["createReservoirRegistry"]["reservoir"]
    assert {created[key] for key in ("accessKey", "secretKey")} == {"********"}
    assert created["remoteArtifactRegistries"] is None
    # Proxies read nothing from it.
    assert manager.proxy.configuration["registries"] == []
    listed = await manager.ask("{ reservoirRegistries { count edges { node { id name apiVersion } } } }")
    assert listed["reservoirRegistries"]["edges"][0]["node"]["name"] == "other"
    scan = "mutation($input: ScanArtifactsInput!) { scanArtifacts(input: $input) { artifacts { id } } }"
    error = await manager.refusal(scan, {"input": {"registryId": created["id"], "limit": 5}})
    assert error["extensions"]["code"] == "UNSUPPORTED_REGISTRY"
    for query in (
        "mutation { delegateScanArtifacts(input: {limit: 3}) { artifacts { id } } }",
        "mutation { delegateImportArtifacts(input: {artifactRevisionIds: []}) { tasks { taskId } } }",
    ):
        error = await manager.refusal(query)
        assert error["extensions"]["code"] == "UNSUPPORTED_REGISTRY"


async def test_a_model_of_an_entered_registry_is_scanned_and_imported_by_its_name(manager: Manager) -> None:
    created = await create(manager)
    revision = {"name": "main", "commit": "a" * 40, "size": 3, "readme": "# hello"}
    manager.proxy.models["org/there"] = {"model_id": "org/there", "revisions": [revision]}
    # registryId is a UUID there.
    key = str(await manager.registry_id("mirror"))
    scanned = await manager.ask(
        "mutation($input: ScanArtifactModelsInput!) { scanArtifactModels(input: $input) {"
        " artifactRevision { edges { node { id readme artifact { registry { name url } } } } } } }",
        {"input": {"models": [{"modelId": "org/there"}], "registryId": key}},
    )
    node = scanned["scanArtifactModels"]["artifactRevision"]["edges"][0]["node"]
    assert node["artifact"]["registry"] == {"name": "mirror", "url": "https://mirror.example/hub"}
    await manager.ask(
        "mutation($id: ID!) { importArtifacts(input: {artifactRevisionIds: [$id]}) { tasks { taskId } } }",
        {"id": node["id"]},
    )
    (order,) = manager.proxy.orders.values()
    assert order.registry_name == "mirror"
    rename = {"input": {"id": created["id"], "name": "new-name"}}
    error = await manager.refusal(UPDATE, rename)
    assert error["extensions"] == {"code": "CONFLICT", "field": "input.name"}
    assert len(await manager.rows(ImportTask)) == 1


async def test_the_default_registry_is_the_configured_one(manager: Manager) -> None:
    query = "query($type: ArtifactType!) { defaultArtifactRegistry(artifactType: $type) { id registryId name type } }"
    person = await manager.person()
    found = (await manager.ask(query, {"type": "MODEL"}, by=person))["defaultArtifactRegistry"]
    assert (found["name"], found["type"]) == ("hub", "HUGGINGFACE")
    by_type = await manager.ask(
        "query($id: ID!) { huggingfaceRegistry(id: $id) { id } }", {"id": found["registryId"]}
    )
    assert by_type["huggingfaceRegistry"]["id"] == found["registryId"]
    assert (await manager.ask(query, {"type": "IMAGE"}))["defaultArtifactRegistry"] is None


async def test_registries_are_for_administrators(manager: Manager) -> None:
    person = await manager.person()
    for query in (
        "{ huggingfaceRegistries { count } }",
        "{ reservoirRegistries { count } }",
        f'{{ huggingfaceRegistry(id: "{uuid4()}") {{ id }} }}',
    ):
        error = await manager.refusal(query, by=person)
        assert error["extensions"]["code"] == "FORBIDDEN", query
    error = await manager.refusal(CREATE, {"input": MIRROR}, by=person)
    assert error["extensions"]["code"] == "FORBIDDEN"


async def test_registries_are_paged_by_name(manager: Manager) -> None:
    for name in ("b", "a", "c"):
        await create(manager, name=name)
    query = """query($after: String) { huggingfaceRegistries(first: 2, after: $after) {
      count pageInfo { hasNextPage endCursor } edges { node { name } } } }"""
    first = (await manager.ask(query))["huggingfaceRegistries"]
    assert [edge["node"]["name"] for edge in first["edges"]] == ["a", "b"]
    assert first["count"] == 4
    after = {"after": first["pageInfo"]["endCursor"]}
    second = (await manager.ask(query, after))["huggingfaceRegistries"]
    assert [edge["node"]["name"] for edge in second["edges"]] == ["c", "hub"]
