"""What administrators enter in GraphQL works at once, in every process, with no file edited and nothing restarted."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.conftest import RunningStack
from tests.e2e.conftest import PATIENCE
from tests.e2e.test_secrets import rows
from tests.e2e.world import Files, Model, World, wait_until
from tests.faults.hub import FaultHub, Rule
from tests.faults.models import digest_tree
from tests.s3.server import S3Server

FILES: Files = {"big.bin": 700_000, "config.json": b'{"a": 1}', "nested/part.bin": 9000}
TOKEN = "hf_planted_of_an_entered_registry"
NEW_TOKEN = "hf_planted_in_its_place"

CREATE_REGISTRY = """mutation ($input: CreateHuggingFaceRegistryInput!) {
  createHuggingfaceRegistry(input: $input) { huggingfaceRegistry { id name url token } } }"""
CREATE_OBJECT = """mutation ($input: CreateObjectStorageInput!) {
  createObjectStorage(input: $input) { objectStorage { id name accessKey secretKey } } }"""
CREATE_VFS = (
    "mutation ($input: CreateVFSStorageInput!) { createVFSStorage(input: $input) { vfsStorage { id } } }"
)
NAMESPACE = (
    """mutation ($input: RegisterStorageNamespaceInput!) { registerStorageNamespace(input: $input) { id } }"""
)
CLEAN_UP = """mutation ($id: ID!) { cleanupArtifactRevisions(input: {artifactRevisionIds: [$id]}) {
  artifactRevisions { edges { node { status } } } } }"""
DOWNLOAD = """mutation ($input: GetPresignedDownloadURLInput!) { getPresignedDownloadUrl(input: $input) { presignedUrl } }"""
SCAN = """mutation ($model: String!, $revision: String, $registry: UUID!) {
  scanArtifactModels(input: {registryId: $registry, models: [{modelId: $model, revision: $revision}]}) {
    artifactRevision { edges { node { id version size digest readme artifact { id registry { name } } } } } } }"""


@pytest.fixture(scope="module")
def own_world(tmp_path_factory: pytest.TempPathFactory, hubs: tuple[FaultHub, FaultHub]) -> Iterator[World]:
    """A stack of this module's own whose files know nothing but the hub, with a second worker."""
    data = tmp_path_factory.mktemp("entered") / "data"
    hub, mirror = hubs
    stack = RunningStack(data, hf_endpoint=hub.url, proxy_settings=PATIENCE)
    with (data.parent / "second-worker.out").open("wb") as output:
        command = [sys.executable, "-m", "storage_proxy.worker", "--config", str(stack.dir.proxy_config)]
        second = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield World(stack, hub, mirror, data)
    finally:
        second.terminate()
        second.wait()
        stack.stop()


@pytest.fixture
def entered(own_world: World) -> Iterator[World]:
    for hub in (own_world.hub, own_world.mirror):
        hub.forget()
    yield own_world
    own_world.hub.clear()
    own_world.mirror.clear()


@contextmanager
def without(world: World, part: str) -> Iterator[None]:
    """Let a process of the stack stand still: what happens meanwhile another one does."""
    pid = world.stack.kill(part, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def plain(global_id: str) -> str:
    return base64.b64decode(global_id).decode().partition(":")[2]


def enter_registry(world: World, name: str, **changes: str) -> str:
    """Enter the mirror as a registry; returns its id."""
    given = {"name": name, "url": world.mirror.url, "token": TOKEN} | changes
    data = world.stack.graphql(CREATE_REGISTRY, {"input": given})
    found: str = data["createHuggingfaceRegistry"]["huggingfaceRegistry"]["id"]
    return found


def scan(world: World, model: Model, registry: str, revision: str | None = "main") -> dict[str, Any]:
    variables = {"model": model.id, "registry": plain(registry), "revision": revision}
    edges = world.stack.graphql(SCAN, variables)["scanArtifactModels"]["artifactRevision"]["edges"]
    found: dict[str, Any] = edges[0]["node"]
    return found


def refusal(world: World, query: str, **variables: Any) -> dict[str, Any]:
    (error,) = world.stack.post(query, variables)["errors"]
    found: dict[str, Any] = error
    return found


def test_a_registry_is_scanned_and_imported_from_by_every_worker(entered: World) -> None:
    world = entered
    registry = enter_registry(world, "mine")
    model, folder = world.model(FILES, hub=world.mirror), world.folder()

    revision = scan(world, model, registry)
    with without(world, "worker"):
        (task_id,) = world.order([revision["id"]], folder)
        assert world.finished(str(task_id))["status"] == "SUCCEEDED"

    assert revision["artifact"]["registry"] == {"name": "mine"}
    assert folder.digests(f"{model.id}/main") == model.digests
    assert {request.headers.get("authorization") for request in world.mirror.requests} == {f"Bearer {TOKEN}"}
    assert world.hub.requests == []


def test_a_new_token_is_used_from_then_on_and_outlives_every_process(entered: World) -> None:
    world = entered
    registry = enter_registry(world, "renewed")
    model = world.model(FILES, hub=world.mirror)
    scan(world, model, registry)
    world.stack.graphql(
        "mutation ($id: ID!, $token: String) { updateHuggingfaceRegistry(input: {id: $id, token: $token}) { __typename } }",
        {"id": registry, "token": NEW_TOKEN},
    )
    world.mirror.forget()
    assert world.finished(str(world.order([scan(world, model, registry)["id"]])[0]))["status"] == "SUCCEEDED"
    for part in ("proxy", "worker", "manager"):
        pid = world.stack.kill(part)
        wait_until(lambda part=part, pid=pid: world.stack.pids[part] != pid, "it is not started again")  # type: ignore[misc]
    world.stack.wait_ready()
    again = world.model(FILES, hub=world.mirror)
    assert world.finished(str(world.order([scan(world, again, registry)["id"]])[0]))["status"] == "SUCCEEDED"
    sent = {request.headers.get("authorization") for request in world.mirror.requests}
    assert sent == {f"Bearer {NEW_TOKEN}"}


def test_a_proxy_that_lost_what_it_was_told_is_told_again(entered: World) -> None:
    world = entered
    registry = enter_registry(world, "kept")
    world.rows("DELETE FROM stowage_proxy.entered")
    pid = world.stack.kill("proxy")
    wait_until(lambda: world.stack.pids["proxy"] != pid, "it is not started again")
    world.stack.wait_ready()
    wait_until(lambda: bool(world.rows("SELECT FROM stowage_proxy.entered")), "it is not told again")
    assert scan(world, world.model(FILES, hub=world.mirror), registry)["digest"]


def test_a_registry_in_use_is_not_deleted_and_its_name_is_free_afterwards(entered: World) -> None:
    world = entered
    registry = enter_registry(world, "passing")
    revision = scan(world, world.model(FILES, hub=world.mirror), registry)
    delete = "mutation ($id: ID!) { deleteHuggingfaceRegistry(input: {id: $id}) { id } }"
    assert refusal(world, delete, id=registry)["extensions"] == {"code": "CONFLICT", "field": "input.id"}
    world.stack.graphql(
        "mutation ($id: ID!) { deleteArtifacts(input: {artifactIds: [$id]}) { __typename } }",
        {"id": revision["artifact"]["id"]},
    )
    assert UUID(world.stack.graphql(delete, {"id": registry})["deleteHuggingfaceRegistry"]["id"])
    assert enter_registry(world, "passing") != registry


@pytest.mark.parametrize(
    ("changes", "rule", "code", "field"),
    [
        ({}, Rule(status=401), "SOURCE_FORBIDDEN", "input.token"),
        ({}, Rule(html=True), "SOURCE_INVALID", "input.url"),
        ({"url": "http://127.0.0.1:1"}, None, "SOURCE_UNAVAILABLE", "input.url"),
        ({"name": "huggingface"}, None, "CONFLICT", "input.name"),
    ],
)
def test_what_does_not_work_is_said_and_not_kept(
    entered: World, changes: dict[str, str], rule: Rule | None, code: str, field: str
) -> None:
    world = entered
    if rule is not None:
        world.mirror.set(rule)
    given = {"name": "broken", "url": world.mirror.url, "token": TOKEN} | changes
    error = refusal(world, CREATE_REGISTRY, input=given)
    assert error["extensions"] == {"code": code, "field": field}
    assert world.rows("SELECT FROM artifact_registries WHERE name = 'broken'") == []


# Storages.


def enter_bucket(world: World, server: S3Server, bucket: str, name: str) -> str:
    """Enter an object storage with one bucket; returns its id."""
    given = {
        "name": name,
        "host": "local",
        "endpoint": server.endpoint,
        "region": server.region,
        "accessKey": server.credentials.access_key,
        "secretKey": server.credentials.secret_key,
    }
    made = world.stack.graphql(CREATE_OBJECT, {"input": given})["createObjectStorage"]["objectStorage"]
    assert {made["accessKey"], made["secretKey"]} == {"********"}
    namespace = {"storageId": plain(made["id"]), "namespace": bucket}
    world.stack.graphql(NAMESPACE, {"input": namespace})
    found: str = made["id"]
    return found


def keys(server: S3Server, bucket: str) -> set[str]:
    client = server.client(bucket)
    try:
        return {found.key for found in client.objects("")}
    finally:
        client.close()


def test_a_bucket_is_imported_into_read_by_url_and_cleaned_up(entered: World, s3_server: S3Server) -> None:
    world = entered
    model, folder = world.model(FILES, branches={"main-fp16": FILES}), world.folder()
    with s3_server.bucket() as bucket:
        storage = enter_bucket(world, s3_server, bucket, "minio")
        place = f"local:minio.{bucket}"
        revision, sibling = world.scan(model), world.scan(model, "main-fp16")
        with without(world, "worker"):
            tasks = world.order([revision["id"], sibling["id"]], storage=place)
            ended = [world.finished(str(task_id)) for task_id in tasks]
        assert [(task["status"], task["error"]) for task in ended] == [("SUCCEEDED", None)] * 2
        assert ended[0]["destination"] == {"storageName": f"minio.{bucket}"}
        assert world.revision(revision["id"])["status"] == "AVAILABLE"
        wanted = {f"{model.id}/{version}/{path}" for version in ("main", "main-fp16") for path in FILES}
        assert {key for key in keys(s3_server, bucket) if ".stowage" not in key} == wanted
        assert world.bring(model, folder)["status"] == "SUCCEEDED"
        kept = folder.everything()

        given = {"artifactRevisionId": revision["id"], "key": "config.json"}
        url = world.stack.graphql(DOWNLOAD, {"input": given})["getPresignedDownloadUrl"]["presignedUrl"]
        assert httpx.get(url, trust_env=False).content == b'{"a": 1}'
        moved = url.replace("/main/", "/main-fp16/")
        assert httpx.get(moved, trust_env=False).status_code == httpx.codes.FORBIDDEN

        delete = "mutation ($id: ID!) { deleteObjectStorage(input: {id: $id}) { id } }"
        assert refusal(world, delete, id=storage)["extensions"]["code"] == "CONFLICT"
        world.stack.graphql(CLEAN_UP, {"id": revision["id"]})
        left = {key for key in keys(s3_server, bucket) if ".stowage" not in key}
        assert left == {key for key in wanted if "/main-fp16/" in key}
        assert folder.everything() == kept
        world.stack.graphql(CLEAN_UP, {"id": sibling["id"]})
        assert keys(s3_server, bucket) == set()
        assert UUID(world.stack.graphql(delete, {"id": storage})["deleteObjectStorage"]["id"])
        error = refusal(world, DOWNLOAD, input=given)
        assert error["extensions"] == {"code": "CONFLICT", "field": "input.artifactRevisionId"}


@pytest.mark.parametrize("kind", ["vfs", "namespace", "s3"])
def test_no_clean_up_while_an_import_runs_and_none_touches_a_folder(
    entered: World, s3_server: S3Server, kind: str
) -> None:
    world = entered
    with s3_server.bucket() as bucket:
        if kind == "s3":
            enter_bucket(world, s3_server, bucket, "running")
            place = f"local:running.{bucket}"
        else:
            base = world.stack.dir.path / "artifact-storages" / f"shelf-{kind}"
            given = {"name": f"shelf-{kind}", "host": "local", "basePath": str(base)}
            made = world.stack.graphql(CREATE_VFS, {"input": given})["createVFSStorage"]["vfsStorage"]["id"]
            place, root = f"local:shelf-{kind}", base
            if kind == "namespace":
                namespace = {"storageId": plain(made), "namespace": "team-a"}
                world.stack.graphql(NAMESPACE, {"input": namespace})
                place, root = f"{place}.team-a", base / "team-a"
        model, folder = world.model(FILES), world.folder()
        assert world.bring(model, folder)["status"] == "SUCCEEDED"
        kept = folder.everything()
        world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))
        task_id = world.begin(model, storage=place, force=True)
        revision = world.scan(model)["id"]
        wait_until(lambda: world.task(task_id)["status"] == "RUNNING", "it does not run")

        error = refusal(world, CLEAN_UP, id=revision)

        assert error["extensions"] == {"code": "CONFLICT", "field": "input.artifactRevisionIds[0]"}
        world.hub.clear()
        assert world.finished(task_id)["status"] == "SUCCEEDED"
        if kind != "s3":
            assert digest_tree(root / model.id / "main") == model.digests
        answer = world.stack.graphql(CLEAN_UP, {"id": revision})["cleanupArtifactRevisions"]
        assert [edge["node"]["status"] for edge in answer["artifactRevisions"]["edges"]] == ["SCANNED"]
        if kind == "s3":
            assert keys(s3_server, bucket) == set()
        else:
            assert [path.name for path in root.iterdir() if path.name != ".staging"] == []
        assert folder.everything() == kept
        # It can be imported again.
        assert world.bring(model, storage=place)["status"] == "SUCCEEDED"
        world.stack.graphql(CLEAN_UP, {"id": revision})


def test_a_directory_outside_what_the_operator_allows_is_refused(entered: World) -> None:
    world = entered
    for path in ("/etc/stowage", str(world.stack.volume), str(world.stack.dir.storage)):
        given = {"name": "outside", "host": "local", "basePath": path}
        error = refusal(world, CREATE_VFS, input=given)
        assert error["extensions"] == {"code": "BAD_REQUEST", "field": "input.basePath"}


def test_no_entered_secret_comes_out(entered: World, s3_server: S3Server) -> None:
    world = entered
    with s3_server.bucket() as bucket:
        enter_bucket(world, s3_server, bucket, "secretive")
        enter_registry(world, "secretive", token=NEW_TOKEN)
        refused = [
            world.stack.post(
                CREATE_REGISTRY, {"input": {"name": "x", "url": "http://127.0.0.1:1", "token": TOKEN}}
            )
        ]
        read = world.stack.graphql(
            """{ objectStorages { edges { node { id name accessKey secretKey endpoint region host } } }
                 huggingfaceRegistries { edges { node { id name url token } } } }"""
        )
        secrets = {TOKEN, NEW_TOKEN, s3_server.credentials.secret_key, s3_server.credentials.access_key}
        places = {
            "answers": json.dumps([read, refused]),
            "rows": rows(world),
            **{path.name: path.read_text() for path in world.stack.dir.logs.iterdir()},
        }
        assert [
            (place, secret) for place, text in places.items() for secret in secrets if secret in text
        ] == []
        storages = world.stack.graphql("{ objectStorages { edges { node { id name } } } }")
        for edge in storages["objectStorages"]["edges"]:
            if edge["node"]["name"] == "secretive":
                world.stack.graphql(
                    "mutation ($id: ID!) { deleteObjectStorage(input: {id: $id}) { id } }",
                    {"id": edge["node"]["id"]},
                )
