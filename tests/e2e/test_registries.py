"""A registry's own endpoint is used for every call, and its token goes there alone."""

from typing import Any

from tests.e2e.conftest import TOKEN
from tests.e2e.world import Files, World, wait_until

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


# Scans.


def test_many_revisions_are_known_at_once_and_described_soon_whoever_dies(world: World) -> None:
    branches: dict[str, Files] = {f"v{number}": {"weights.bin": 100 + number} for number in range(9)}
    model = world.model(FILES, branches=branches)
    scan = """mutation ($model: String!) { scanArtifactModels(input: {models: [{modelId: $model}]}) {
      artifactRevision { edges { node { id version digest size readme } } } } }"""
    edges = world.stack.graphql(scan, {"model": model.id})["scanArtifactModels"]["artifactRevision"]["edges"]
    found = {edge["node"]["version"]: edge["node"] for edge in edges}
    assert found.keys() == {"main", *branches}
    assert all(len(node["digest"]) == 40 for node in found.values())
    assert {(node["size"], node["readme"]) for node in found.values()} == {(None, None)}

    pid = world.stack.kill("manager")
    wait_until(lambda: world.stack.pids["manager"] != pid, "the manager is not started again")
    world.stack.wait_ready()

    listed = """query ($model: String!) { artifacts(filter: {name: {equals: $model}}) { edges { node {
      revisions(first: 100) { edges { node { version size readme digest } } } } } } }"""

    def described() -> dict[str, Any]:
        (artifact,) = world.stack.graphql(listed, {"model": model.id})["artifacts"]["edges"]
        nodes = [edge["node"] for edge in artifact["node"]["revisions"]["edges"]]
        return {node["version"]: node for node in nodes}

    wait_until(lambda: all(node["size"] for node in described().values()), "sizes are not found")
    now = described()
    assert now["main"]["readme"] == "# A model"
    assert {version: int(now[version]["size"]) for version in branches} == {
        version: 100 + number for number, version in enumerate(branches)
    }
    assert {version: node["digest"] for version, node in now.items()} == {
        version: node["digest"] for version, node in found.items()
    }
