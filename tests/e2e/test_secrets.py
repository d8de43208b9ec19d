"""Secrets are planted in everything that keeps one; then imports succeed, fail, are cancelled and refused, and nothing tells."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from tests.e2e.conftest import TOKEN
from tests.e2e.world import Files, Folder, Person, World
from tests.faults.hub import Rule

FILES: Files = {"big.bin": 300_000, "config.json": b'{"a": 1}', "README.md": b"# A model\n"}
ENTERED = {
    "entered token": "hf_planted_token_that_was_entered",
    "entered access key": "PLANTEDACCESSKEYTHATWASENTERED",
    "entered secret key": "planted/secret+key/that/was/entered",
}
SIGNATURE = "planted-signature-of-an-address"
WRONG = "stw_planted-token-of-nobody"


@pytest.fixture
def guest(world: World) -> Person:
    return world.person()


@pytest.fixture
def secrets(world: World, guest: Person) -> dict[str, str]:
    """Everything that must stay where it is kept."""
    kept = {path.name: path.read_text().strip() for path in world.stack.dir.secrets.iterdir()}
    assert {"database-url", "proxy", "manager-key", "registry-token"} <= set(kept)
    assert kept["registry-token"] == TOKEN
    password = kept["database-url"].split(":")[2].split("@")[0]
    people = {"admin": world.admin.token, "guest": guest.token, "nobody": WRONG}
    found = {**kept, "password": password, **people, "signature": SIGNATURE, **ENTERED}
    assert all(len(secret) >= 16 for secret in found.values())
    return found


@pytest.fixture
def answers(world: World, guest: Person) -> Iterator[list[str]]:
    """Everything that the manager answers from now on, headers too; `guest` has got the token already."""
    told: list[str] = []

    def note(response: httpx.Response) -> None:
        response.read()
        told.append(f"{dict(response.headers)} {response.text}")

    hooks = world.stack._client.event_hooks
    world.stack._client.event_hooks = {"request": [], "response": [note]}
    yield told
    world.stack._client.event_hooks = hooks


def test_no_secret_comes_out_in_logs_rows_answers_and_files(
    world: World, guest: Person, secrets: dict[str, str], answers: list[str]
) -> None:
    model, folder = world.model(FILES), world.folder(guest)
    task = world.bring(model, folder, by=guest)
    assert task["status"] == "SUCCEEDED"
    assert world.bring(model)["status"] == "SUCCEEDED"
    failures(world, guest, folder)
    cancelled(world, guest, folder)
    refusals(world, guest)
    entered(world)
    readings(world, folder.id)

    places = {
        "answers": "\n".join(answers),
        "the proxy's answers": the_proxys_answers(world, task["id"]),
        "rows": rows(world),
        "the folder": below(folder.path),
        "the artifact storage": "".join(below(path) for path in world.storages()),
        "commands": commands(world),
        **{path.name: path.read_text() for path in world.stack.dir.logs.iterdir()},
        "output": world.stack.output.read_text(),
    }

    # What is no secret is found: the places are those where things come out.
    request_id = world.task(task["id"])["requestId"]
    for place in ("answers", "rows", "manager.log", "worker.log", "the proxy's answers"):
        assert request_id in places[place], place
    assert "".join(model.digests) not in places["the folder"]
    assert task["id"] in places["the folder"]
    leaks = [
        (place, name)
        for place, text in places.items()
        for name, secret in secrets.items()
        for form in forms(secret)
        if form in text
    ]
    assert leaks == []


def forms(secret: str) -> set[str]:
    """Return how a secret may be written; base64 without the ends, which depend on what stands around it."""
    data = secret.encode()
    shifted = (base64.b64encode(b" " * shift + data).decode().rstrip("=")[4:-2] for shift in range(3))
    return {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], data.hex(), *shifted}


# What happens.


def failures(world: World, guest: Person, folder: Folder) -> None:
    """Make imports fail in every way that quotes something of the registry's."""
    model = world.model(FILES)
    path = f"{model.id}/.*big.bin"
    repeated = {"x-error-message": f"bad token {TOKEN}", "x-error-code": TOKEN}
    away = f"{world.mirror.url}/nowhere{{path}}?X-Amz-Signature={SIGNATURE}"
    for rule in (
        Rule(path=path, status=401, headers=repeated, body=json.dumps({"error": TOKEN}).encode()),
        Rule(path=path, status=400, headers=repeated, body=TOKEN.encode()),
        Rule(path=path, redirect=f"http://127.0.0.1:1/{{path}}?X-Amz-Signature={SIGNATURE}"),
        Rule(path=path, redirect=away),
        Rule(path=path, redirect=f"ftp://user:{SIGNATURE}@elsewhere.invalid/?X-Amz-Signature={SIGNATURE}"),
        Rule(path=path, flip_at=0),
        Rule(path=f"api/models/{model.id}", status=403, headers=repeated),
        Rule(path=f"api/models/{model.id}", body=f"<{TOKEN}>".encode(), status=200),
    ):
        world.hub.clear()
        revision = world.scan(model)["id"]
        world.hub.set(rule)
        (task_id,) = world.order([revision], folder, by=guest, force=True)
        assert task_id is not None
        assert world.finished(task_id)["status"] == "FAILED", rule
    scan = "mutation ($m: String!) { scanArtifactModels(input: {models: [{modelId: $m}]}) { __typename } }"
    world.hub.set(Rule(path=model.id, status=403, headers=repeated))
    assert world.stack.post(scan, {"m": model.id})["errors"]
    world.hub.clear()


def cancelled(world: World, guest: Person, folder: Folder) -> None:
    model = world.model(FILES)
    world.hub.set(Rule(path=f"{model.id}/.*big.bin", stall_after=1000))
    task_id = world.begin(model, folder, by=guest)
    world.bytes_flow(model, 1000)
    world.cancel(task_id)
    assert world.finished(task_id)["status"] == "CANCELLED"
    world.hub.clear()


def refusals(world: World, guest: Person) -> None:
    revision = world.scan(world.model(FILES))["id"]
    foreign = world.folder()
    for answer in (
        world.request([revision], foreign, by=guest),
        world.request([revision], by=guest),
        world.request(["no id"], foreign),
        world.stack.post("{ me { email } }", token=WRONG),
        world.stack.post("{ nonsense }"),
    ):
        assert answer["errors"]
    for secret in (WRONG, "none"):
        door = f"{world.stack.url}/internal/imports/{uuid4()}/authorize"
        refused = world.stack._client.post(door, headers={"Authorization": f"Bearer {secret}"})
        assert refused.status_code == httpx.codes.UNAUTHORIZED


def entered(world: World) -> None:
    """Enter secrets, at a place that takes them and at places where nobody answers."""
    token, access, secret = ENTERED.values()
    registry = """mutation ($input: CreateHuggingFaceRegistryInput!) {
      createHuggingfaceRegistry(input: $input) { huggingfaceRegistry { id name url } } }"""
    for name, url in (("entered", world.mirror.url), ("away", "http://127.0.0.1:1")):
        world.stack.post(registry, {"input": {"name": name, "url": url, "token": token}})
    storage = """mutation ($input: CreateObjectStorageInput!) {
      createObjectStorage(input: $input) { objectStorage { id name accessKey secretKey endpoint } } }"""
    for name, endpoint in (("entered", world.mirror.url), ("away", "http://127.0.0.1:1")):
        asked = {"name": name, "host": "local", "accessKey": access, "secretKey": secret}
        world.stack.post(storage, {"input": {**asked, "endpoint": endpoint, "region": "us-east-1"}})


# Where it could come out.


def readings(world: World, folder_id: str) -> None:
    """Read everything that the API has to say."""
    for text in (
        "{ me { id email role } volumes { host } }",
        "{ users(first: 100) { edges { node { id email } } } }",
        "{ tokens(first: 100) { edges { node { id name } } } }",
        "{ auditEntries(first: 100) { edges { node { action subject details } } } }",
        "{ artifacts(first: 100) { edges { node { id name extra registry { name url } } } } }",
        "{ artifactRevisions(first: 100) { edges { node { id readme digest status } } } }",
        """{ importTasks(first: 100) { edges { node {
             id error { code message } requestId path commit
             verificationResult { verifiers { name result { error metadata { entries { key value } } } } } } } } }""",
        "{ huggingfaceRegistries(first: 100) { edges { node { id name url token } } } }",
        "{ objectStorages(first: 100) { edges { node { id name accessKey secretKey endpoint } } } }",
        f'{{ vfolder(id: "{folder_id}") {{ name host usage {{ usedBytes }} }} }}',
    ):
        answer = world.stack.post(text)
        assert not answer.get("errors"), answer


def the_proxys_answers(world: World, task_id: str) -> str:
    paths = ("/volumes", "/artifact-storages", "/configuration", f"/imports/{task_id}", "/readyz", "/nothing")
    return "\n".join(world.proxy("GET", path).text for path in paths)


def rows(world: World) -> str:
    """Return all rows of both services as text."""
    tables = world.rows(
        """SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables
           WHERE table_schema NOT IN ('pg_catalog', 'information_schema') AND table_type = 'BASE TABLE'"""
    )
    assert {"public.import_tasks", "stowage_proxy.imports"} <= {table["name"] for table in tables}
    return "\n".join(
        str(row["row"])
        for table in tables
        for row in world.rows(f"SELECT to_jsonb(t)::text AS row FROM {table['name']} t")
    )


def below(folder: Path) -> str:
    return "\n".join(
        f"{path} {path.read_bytes().decode(errors='replace')}" for path in folder.rglob("*") if path.is_file()
    )


def commands(world: World) -> str:
    """Return what every process of the stack shows to all users of the machine."""
    told: list[Any] = [Path(f"/proc/{pid}/cmdline").read_text() for pid in world.stack.pids.values()]
    return "\n".join(told)
