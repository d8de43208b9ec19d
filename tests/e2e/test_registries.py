"""A registry's own endpoint is used for every call, its token goes there alone, and no secret comes out."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import TOKEN
from tests.e2e.world import Files, World
from tests.faults.hub import Rule

FILES: Files = {
    "README.md": b"# A model",
    "big.bin": 1_100_000,
    "config.json": b"{}",
    "nested/part.bin": 20_000,
    "nested/tokens.txt": b"a b c",
}


def test_every_call_for_a_mirror_goes_to_the_mirror_below_its_path(world: World) -> None:
    model, folder = world.model(FILES, hub=world.mirror), world.folder()
    world.hub.forget()
    world.mirror.forget()

    revision = world.scan(model)
    (task_id,) = world.order([revision["id"]], folder)
    task = world.finished(str(task_id))

    assert task["status"] == "SUCCEEDED"
    assert revision["readme"] == "# A model"
    assert revision["artifact"]["registry"] == {"name": "mirror", "url": world.mirror.url}
    assert folder.digests(f"{model.id}/main") == model.digests
    assert world.hub.requests == [], "nothing else is asked"
    asked = world.mirror.requests
    assert {request.path.startswith(f"{world.mirror.prefix}/") for request in asked} == {True}
    assert {request.status for request in asked} <= {200, 206}
    kinds = {request.path.removeprefix(world.mirror.prefix).split("/")[1] for request in asked}
    assert kinds == {"api", "org"}, "metadata and bytes"
    assert len(world.mirror.seen("cursor=")) >= 2, "the pages of a list, too"


def test_a_search_goes_to_the_registry_that_is_named(world: World) -> None:
    model = world.model(FILES, hub=world.mirror)
    world.hub.forget()

    found = world.stack.graphql(
        """mutation ($registry: ID!, $search: String!) {
             scanArtifacts(input: {registryId: $registry, limit: 10, artifactType: MODEL, search: $search}) {
               artifacts { name registry { name } } } }""",
        {"registry": str(world.registries["mirror"]), "search": model.id},
    )["scanArtifacts"]["artifacts"]

    assert [artifact for artifact in found if artifact["name"] == model.id] == [
        {"name": model.id, "registry": {"name": "mirror"}}
    ]
    assert world.hub.requests == []
    assert world.mirror.requests


def test_the_same_name_in_two_registries_is_two_models(world: World) -> None:
    one = world.model(FILES)
    two = world.model({"config.json": b"another"}, hub=world.mirror)
    two.path.rename(world.mirror.directory / one.id)
    two.id = one.id
    folders = world.folder(), world.folder()

    tasks = [world.bring(model, folder) for model, folder in zip((one, two), folders, strict=True)]

    assert [task["status"] for task in tasks] == ["SUCCEEDED", "SUCCEEDED"]
    assert folders[0].digests(f"{one.id}/main") == one.digests
    assert folders[1].digests(f"{one.id}/main") == two.digests


# Secrets.


def test_the_token_goes_to_its_registry_with_every_call_and_to_no_other(world: World) -> None:
    model, other, folder = world.model(FILES), world.model(FILES, hub=world.mirror), world.folder()
    world.hub.forget()
    world.mirror.forget()

    world.bring(model, folder)
    world.bring(other, folder)

    assert {request.headers.get("authorization") for request in world.hub.requests} == {f"Bearer {TOKEN}"}
    assert {request.headers.get("authorization") for request in world.mirror.requests} == {None}


@pytest.fixture
def secrets(world: World) -> dict[str, str]:
    """Everything that must stay where it is kept."""
    kept = {path.name: path.read_text().strip() for path in world.stack.dir.secrets.iterdir()}
    password = kept["database-url"].split(":")[2].split("@")[0]
    assert kept["registry-token"] == TOKEN
    found = {**kept, "password": password, "admin": world.admin.token, "user": world.person().token}
    assert all(len(secret) >= 16 for secret in found.values())
    return found


def test_no_secret_comes_out_in_logs_rows_answers_and_files(world: World, secrets: dict[str, str]) -> None:
    model, folder = world.model(FILES), world.folder()
    assert world.bring(model, folder)["status"] == "SUCCEEDED"
    assert world.bring(model)["status"] == "SUCCEEDED"
    told = json.dumps([*failures(world), *readings(world, folder.id)])
    wire = json.dumps([world.proxy("GET", path).text for path in ("/volumes", "/artifact-storages")])

    places = {
        "answers": told,
        "the proxy's answers": wire,
        "rows": rows(world),
        "manifests": "".join(path.read_text() for path in folder.path.rglob("*.json")),
        **{path.name: path.read_text() for path in world.stack.dir.logs.iterdir()},
        "output": world.stack.output.read_text(),
    }

    assert all(places[name] for name in ("answers", "rows", "manifests", "worker.log"))
    leaks = [
        (place, name) for place, text in places.items() for name, secret in secrets.items() if secret in text
    ]
    assert leaks == []


def failures(world: World) -> list[Any]:
    """Make a scan, imports and requests fail in every way that quotes something."""
    model, folder = world.model(FILES), world.folder()
    answers: list[Any] = []
    for rule in (
        Rule(path=f"{model.id}/.*big.bin", status=401, headers={"x-error-message": f"bad token {TOKEN}"}),
        Rule(path=f"{model.id}/.*big.bin", redirect="http://127.0.0.1:1/{path}?X-Amz-Signature=sealed"),
        Rule(path=f"{model.id}/.*big.bin", flip_at=0),
    ):
        world.hub.set(rule)
        task = world.bring(model, folder)
        assert task["status"] == "FAILED"
        assert "sealed" not in json.dumps(task)
        answers.append(task)
    world.hub.set(Rule(path=model.id, status=403))
    scan = "mutation ($m: String!) { scanArtifactModels(input: {models: [{modelId: $m}]}) { __typename } }"
    answers.append(world.stack.post(scan, {"m": model.id}))
    answers.append(world.stack.post("{ me { email } }", token="stw_wrong"))
    answers.append(world.stack.post("{ nonsense }"))
    assert all(answer["errors"] for answer in answers[3:])
    return answers


def readings(world: World, folder_id: str) -> list[Any]:
    """Read everything that the API has to say."""
    return [
        world.stack.graphql(text, variables)
        for text, variables in (
            ("{ me { id email role } volumes { host } }", {}),
            ("{ artifacts(first: 100) { edges { node { id name extra registry { name url } } } } }", {}),
            ("{ artifactRevisions(first: 100) { edges { node { id readme digest status } } } }", {}),
            (
                """{ importTasks(first: 100) { edges { node {
                     id error { code message } requestId path commit
                     verificationResult { verifiers { name result { error metadata { entries { key value } } } } }
                   } } } }""",
                {},
            ),
            (
                "query ($id: ID!) { vfolder(id: $id) { name host usage { usedBytes } } }",
                {"id": folder_id},
            ),
        )
    ]


def rows(world: World) -> str:
    """Return all rows of both services as text."""
    tables = world.rows(
        """SELECT format('%I.%I', table_schema, table_name) AS name FROM information_schema.tables
           WHERE table_schema IN ('public', 'stowage_proxy') AND table_type = 'BASE TABLE'"""
    )
    assert {"public.import_tasks", "stowage_proxy.imports"} <= {table["name"] for table in tables}
    return "\n".join(
        str(row["row"])
        for table in tables
        for row in world.rows(f"SELECT to_jsonb(t)::text AS row FROM {table['name']} t")
    )
