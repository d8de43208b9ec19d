"""Every list of the schema is paged in both styles, forward and backward, whatever it lists."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from graphql import GraphQLField, build_schema, get_named_type, is_object_type

from manager.graphql.schema import schema
from manager.models import (
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactStorage,
    ArtifactStorageType,
    ImportConflictPolicy,
    ImportTask,
    Project,
    StorageNamespace,
)
from tests.graphql.served import Json, Manager

pytestmark = pytest.mark.anyio

ARGUMENTS = {"first", "last", "after", "before", "limit", "offset"}
# What a mutation answers is there as a whole, and of another Stowage nothing is listed.
WHOLE = {"ReservoirRegistry.remoteArtifactRegistries"}
NEEDS = {"projectMembers", "vfolderShares"}
FILLED = {
    "artifacts",
    "artifactRevisions",
    "huggingfaceRegistries",
    "reservoirRegistries",
    "objectStorages",
    "vfsStorages",
    "vfolders",
    "importTasks",
    "users",
    "tokens",
    "projects",
}


def lists() -> Iterator[tuple[str, str, GraphQLField]]:
    """Yield every field that is a list of the Relay kind."""
    for name, kind in build_schema(str(schema)).type_map.items():
        if is_object_type(kind) and not name.endswith("Payload"):
            for field_name, field in kind.fields.items():
                if get_named_type(field.type).name.endswith("Connection"):
                    yield name, field_name, field


ROOTS = sorted(name for kind, name, _ in lists() if kind == "Query" and name not in NEEDS)


def test_every_list_takes_both_styles() -> None:
    lacking = {
        f"{kind}.{name}": ARGUMENTS - set(field.args)
        for kind, name, field in lists()
        if f"{kind}.{name}" not in WHOLE and not set(field.args) >= ARGUMENTS
    }
    assert lacking == {}
    assert set(ROOTS) >= FILLED


async def fill(manager: Manager) -> None:
    """Make five of each thing."""
    for number in range(5):
        artifact = await manager.artifact(f"org/model-{number % 2}-{number}")
        revision = await manager.revision(artifact, size=number % 2)
        kinds = (ArtifactRegistryType.HUGGINGFACE, ArtifactRegistryType.RESERVOIR)
        for kind in kinds:
            name = f"{kind.value.lower()}-{number}"
            await manager.add(ArtifactRegistry(name=name, type=kind, url="http://x.example"))
        for storage in (ArtifactStorageType.OBJECT, ArtifactStorageType.VFS):
            name = f"{storage.value.lower()}-{number}"
            await manager.add(
                ArtifactStorage(
                    name=name,
                    type=storage,
                    proxy="local",
                    base_path=f"/srv/{name}",
                    endpoint="http://s",
                    region="r",
                )
            )
        await manager.folder(manager.admin)
        await manager.person()
        await manager.add(Project(name=f"project-{number}"))
        await manager.add(
            ImportTask(
                id=uuid4(),
                request_id="r",
                requested_by_id=manager.admin.id,
                artifact_revision_id=revision.id,
                proxy="local",
                storage_name="archive",
                path="x",
                destination="local:archive",
                on_conflict=ImportConflictPolicy.FAIL,
                order={},
            )
        )
        await manager.ask('mutation { createToken(input: {name: "one of several"}) { id } }')


async def page(manager: Manager, name: str, arguments: str) -> tuple[list[str], Json]:
    query = f"{{ {name}({arguments}) {{ edges {{ cursor }} pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }}"
    found = (await manager.ask(query))[name]
    return [edge["cursor"] for edge in found["edges"]], found["pageInfo"]


async def test_every_way_through_a_list_meets_the_same_rows(manager: Manager) -> None:
    await fill(manager)
    for name in ROOTS:
        whole, _ = await page(manager, name, "first: 100")
        assert len(set(whole)) == len(whole)
        assert len(whole) >= (5 if name in FILLED else 0), name

        forward: list[str] = []
        more = bool(whole)
        while more:
            found, info = await page(
                manager, name, f'first: 2, after: "{forward[-1]}"' if forward else "first: 2"
            )
            forward += found
            more = info["hasNextPage"]
        assert forward == whole, name

        backward: list[str] = []
        more = bool(whole)
        while more:
            found, info = await page(
                manager, name, f'last: 2, before: "{backward[0]}"' if backward else "last: 2"
            )
            backward = found + backward
            more = info["hasPreviousPage"]
        assert backward == whole, name

        skipped = [
            cursor
            for offset in range(0, len(whole), 2)
            for cursor in (await page(manager, name, f"limit: 2, offset: {offset}"))[0]
        ]
        assert skipped == whole, name
        error = await manager.refusal(f"{{ {name}(first: 1, limit: 1) {{ count }} }}")
        assert error["extensions"]["code"] == "BAD_REQUEST", name


async def test_the_namespaces_of_each_storage_are_paged_apart(manager: Manager) -> None:
    for number in range(2):
        storage = ArtifactStorage(
            name=f"store-{number}",
            type=ArtifactStorageType.OBJECT,
            proxy="local",
            endpoint="http://s",
            region="r",
        )
        await manager.add(storage)
        for name in ("a", "b", "c"):
            await manager.add(StorageNamespace(storage_id=storage.id, namespace=f"{name}{number}"))

    async def seen(arguments: str) -> list[list[str]]:
        query = f"""{{ objectStorages {{ edges {{ node {{
          namespaces({arguments}) {{ edges {{ cursor node {{ namespace }} }} }} }} }} }} }}"""
        edges = (await manager.ask(query))["objectStorages"]["edges"]
        return [[one["node"]["namespace"] for one in edge["node"]["namespaces"]["edges"]] for edge in edges]

    assert await seen("first: 2") == [["a0", "b0"], ["a1", "b1"]]
    assert await seen("last: 1") == [["c0"], ["c1"]]
    assert await seen("limit: 1, offset: 1") == [["b0"], ["b1"]]
