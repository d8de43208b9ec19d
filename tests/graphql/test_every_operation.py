"""What holds of every operation, as the schema lists them, so that a new one is held to it too.

Somebody else's things are as if they were not there; an id of another type is refused; without a token nothing is
answered; and whatever changes something writes it into the audit log.
"""

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    get_named_type,
    is_leaf_type,
)

from manager.graphql.ids import global_id, parse_id
from manager.graphql.schema import schema
from manager.models import (
    ApiToken,
    Base,
    Project,
    ProjectMember,
    Quota,
    VFolder,
    VFolderInvitation,
    VFolderOwnershipType,
    VFolderPermission,
)
from manager.room import QuotaPlace
from proxy_client import wire
from tests.graphql.served import Json, Manager, Person

pytestmark = pytest.mark.anyio

GRAPHQL = schema._schema  # strawberry has no other door to graphql-core's
# What every user may read, and an answer about it tells nothing. Administrators alone change it.
OF_EVERYBODY = {"ArtifactRevision", "Artifact", "HuggingFaceRegistry"}
SLOTS = {
    "vfolderId": "VFolder",
    "taskId": "ImportTask",
    "projectId": "Project",
    "userId": "User",
    "actorId": "User",
    "storageId": "ObjectStorage",
    "artifactRevisionId": "ArtifactRevision",
    "artifactRevisionIds": "ArtifactRevision",
    "artifactId": "Artifact",
    "artifactIds": "Artifact",
    "registryId": "HuggingFaceRegistry",
}
# An `id` says by its operation what it is of.
IDS = {
    "Token": "ApiToken",
    "Invitation": "VFolderInvitation",
    "vfolder": "VFolder",
    "importTask": "ImportTask",
}
VALUES: dict[str, Any] = {
    "email": "nobody@example.org",
    "host": "local:volume1",
    "url": "http://127.0.0.1:1",
    "endpoint": "http://127.0.0.1:1",
    "path": None,
    "expiresAt": "2100-01-01T00:00:00Z",
}


async def possessions(manager: Manager, owner: Person) -> dict[str, UUID]:
    """Make one thing of each kind that is somebody else's; and what everybody sees."""
    project = Project(name="lab")
    artifact = await manager.artifact()
    revision = await manager.revision(artifact)
    folder = await manager.folder(owner, "private")
    await manager.add(project)
    await manager.add(ProjectMember(project_id=project.id, user_id=owner.id))
    await manager.add(
        VFolder(
            name="shared",
            host="local:volume1",
            ownership_type=VFolderOwnershipType.GROUP,
            project_id=project.id,
        )
    )
    token = ApiToken(user_id=owner.id, name="secret name", token_hash="0" * 64)
    invitation = VFolderInvitation(
        vfolder_id=folder.id,
        email="third@example.org",
        permission=VFolderPermission.RW_DELETE,
        inviter_id=owner.id,
    )
    keys = {"accessKey": "a" * 20, "secretKey": "s" * 40, "endpoint": "http://s3.invalid", "region": "x"}
    entered = await manager.ask(
        """mutation($input: CreateObjectStorageInput!) {
          createObjectStorage(input: $input) { objectStorage { id } } }""",
        {"input": {"name": "buckets", "host": "local", **keys}},
    )
    storage = parse_id(entered["createObjectStorage"]["objectStorage"]["id"], "ObjectStorage", field="id")
    place = QuotaPlace("local", "volume1", user_id=owner.id)
    quota = Quota(
        id=place.id, proxy="local", volume="volume1", user_id=owner.id, limit_bytes=5, staged_bytes=0
    )
    await manager.add(token, invitation, quota)
    asked = {"artifactRevisionIds": [str(revision.id)], "vfolderId": str(folder.id)}
    importing = (
        "mutation($input: ImportArtifactsInput!) { importArtifacts(input: $input) { tasks { taskId } } }"
    )
    await manager.ask(
        "mutation($i: ID!) { setQuota(input: {userId: $i}) { quota { id } } }", {"i": str(owner.id)}
    )
    data = await manager.ask(importing, {"input": asked}, by=owner)
    return {
        "VFolder": folder.id,
        "Project": project.id,
        "User": owner.id,
        "ApiToken": token.id,
        "VFolderInvitation": invitation.id,
        "ObjectStorage": storage,
        "ImportTask": UUID(data["importArtifacts"]["tasks"][0]["taskId"]),
        "ArtifactRevision": revision.id,
        "Artifact": artifact.id,
        "HuggingFaceRegistry": await manager.registry_id(),
    }


# Every operation, with something in every place that wants an id.


def operations(kind: str) -> Iterator[tuple[str, GraphQLField]]:
    root = {"query": GRAPHQL.query_type, "mutation": GRAPHQL.mutation_type}[kind]
    assert root is not None
    yield from root.fields.items()


def kind_of(operation: str, slot: str) -> str:
    if slot in SLOTS:
        return SLOTS[slot]
    return next((kind for part, kind in IDS.items() if part in operation), "ObjectStorage")


class Filler:
    """Fills the arguments of an operation: ids by their kind, whatever else is required by something harmless."""

    def __init__(self, operation: str, ids: dict[str, UUID], *, typed: bool = False) -> None:
        self._operation = operation
        self._ids = ids
        self._typed = typed
        self.kinds: set[str] = set()

    def value(self, name: str, kind: GraphQLInputType) -> Any:
        inner: Any = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
        if isinstance(inner, GraphQLList):
            return [self.value(name, inner.of_type)]
        if isinstance(inner, GraphQLInputObjectType):
            return {
                key: self.value(key, field.type)
                for key, field in inner.fields.items()
                if wanted(field.type, required=isinstance(field.type, GraphQLNonNull))
            }
        if isinstance(inner, GraphQLEnumType):
            return next(iter(inner.values))
        assert isinstance(inner, GraphQLScalarType)
        if inner.name in {"ID", "UUID"}:
            return self._id(name)
        return VALUES.get(name, {"Int": 1, "Boolean": True}.get(inner.name, "x"))

    def _id(self, name: str) -> str:
        kind = kind_of(self._operation, name)
        self.kinds.add(kind)
        return global_id("Nothing", self._ids[kind]) if self._typed else str(self._ids[kind])


def wanted(kind: GraphQLInputType, *, required: bool) -> bool:
    """Whether a place is to be filled: it must be, or it takes an id."""
    named = get_named_type(kind)
    if named.name in {"ID", "UUID"}:
        return True
    if isinstance(named, GraphQLInputObjectType):
        return required
    return required


def document(root: str, name: str, field: GraphQLField, filler: Filler) -> tuple[str, Json]:
    given = {
        argument: filler.value(argument, found.type)
        for argument, found in field.args.items()
        if wanted(found.type, required=isinstance(found.type, GraphQLNonNull))
    }
    declared = ", ".join(f"${argument}: {field.args[argument].type}" for argument in given)
    passed = ", ".join(f"{argument}: ${argument}" for argument in given)
    selection = "" if is_leaf_type(get_named_type(field.type)) else " { __typename }"
    head, call = (f"({declared})", f"({passed})") if given else ("", "")
    return f"{root}{head} {{ {name}{call}{selection} }}", given


async def everything(manager: Manager) -> dict[str, list[Any]]:
    tables = [mapper.class_ for mapper in Base.registry.mappers]
    return {table.__tablename__: await manager.rows(table) for table in tables}


def without_ids(answer: Json, *ids: dict[str, UUID]) -> str:
    text = str(answer)
    for kinds in ids:
        for key in kinds.values():
            text = text.replace(str(key), "ID")
    return text


@pytest.mark.parametrize("root", ["query", "mutation"])
async def test_what_is_somebody_elses_is_as_if_it_were_not_there(manager: Manager, root: str) -> None:
    owner, stranger = await manager.person("owner"), await manager.person("stranger")
    theirs = await possessions(manager, owner)
    before, orders = await everything(manager), list(manager.proxy.orders)
    tried = set()
    for name, field in operations(root):
        filler = Filler(name, theirs)
        text, given = document(root, name, field, filler)
        if not filler.kinds - OF_EVERYBODY:
            continue
        tried.add(name)
        nothing = {kind: theirs[kind] if kind in OF_EVERYBODY else uuid4() for kind in theirs}
        absent_text, absent = document(root, name, field, Filler(name, nothing))
        assert text == absent_text
        answer = await manager.post(text, given, by=stranger)
        assert without_ids(answer, theirs) == without_ids(
            await manager.post(text, absent, by=stranger), nothing
        ), name
        if root == "mutation":
            assert answer["errors"], name
    assert len(tried) > {"query": 8, "mutation": 25}[root]
    assert await everything(manager) == before
    assert list(manager.proxy.orders) == orders
    assert manager.proxy.cancelled == manager.proxy.deleted == manager.proxy.decided == []


async def test_what_everybody_sees_is_changed_by_administrators_alone(manager: Manager) -> None:
    owner, stranger = await manager.person("owner"), await manager.person("stranger")
    theirs = await possessions(manager, owner)
    before = await everything(manager)
    # They look at the registry, or are asked of what the caller may do; they are tested elsewhere.
    open_to_all = {"scanArtifacts", "scanArtifactModels", "getPresignedDownloadUrl", "createToken"}
    for name, field in operations("mutation"):
        if name in open_to_all:
            continue
        text, given = document("mutation", name, field, Filler(name, theirs))
        answer = await manager.post(text, given, by=stranger)
        codes = {error["extensions"]["code"] for error in answer["errors"]}
        assert codes <= {"FORBIDDEN", "NOT_FOUND", "CONFLICT", "BAD_REQUEST", "UNSUPPORTED_REGISTRY"}, name
    assert await everything(manager) == before


async def test_an_id_of_another_type_is_refused_everywhere(manager: Manager) -> None:
    theirs = await possessions(manager, manager.admin)
    before, tried = await everything(manager), 0
    for root in ("query", "mutation"):
        for name, field in operations(root):
            filler = Filler(name, theirs, typed=True)
            text, given = document(root, name, field, filler)
            if not filler.kinds:
                continue
            tried += 1
            answer = await manager.post(text, given)
            assert {error["extensions"]["code"] for error in answer["errors"]} <= {
                "BAD_REQUEST",
                "UNSUPPORTED_REGISTRY",
            }, name
    assert tried > 50
    assert await everything(manager) == before


async def test_no_operation_answers_without_a_token(manager: Manager) -> None:
    theirs = await possessions(manager, await manager.person("owner"))
    headers = {"Authorization": "Bearer stw_of-nobody"}
    before = await everything(manager)
    for root in ("query", "mutation"):
        for name, field in operations(root):
            text, given = document(root, name, field, Filler(name, theirs))
            body = {"query": text, "variables": given}
            answer = (await manager.http.post("/graphql", json=body, headers=headers)).json()
            assert [error["extensions"]["code"] for error in answer["errors"]] == ["UNAUTHENTICATED"], name
            assert not answer["data"], name
    assert await everything(manager) == before


async def test_whatever_changes_something_is_in_the_audit_log(manager: Manager) -> None:
    person = await manager.person("owner")
    theirs = await possessions(manager, person)
    done = set()
    for name, field in operations("mutation"):
        text, given = document("mutation", name, field, Filler(name, theirs))
        before = await everything(manager)
        answer = await manager.post(text, given)
        after = await everything(manager)
        changed = {table for table in after if after[table] != before[table]}
        if not changed:
            continue
        assert "errors" not in answer, answer  # what is refused changes nothing
        assert len(after["audit_log"]) == len(before["audit_log"]) + 1, name
        done.add(name)
    assert len(done) >= 17, done


def test_the_wire_says_of_no_secret_what_it_is() -> None:
    registry = wire.RegistryConfiguration(name="hub", url="http://hub", token="planted")
    bucket = wire.ObjectStorageConfiguration(
        name="b", endpoint="http://s3", region="x", access_key="planted", secret_key="planted"
    )
    whole = wire.ProxyConfiguration(registries=[registry], artifact_storages=[bucket])
    assert "planted" not in f"{whole!r} {whole}"
