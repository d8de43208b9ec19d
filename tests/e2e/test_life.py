"""The life of a revision in the artifact storage, as the real pipeline leads it."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from tests.e2e.world import Files, Person, World, wait_until
from tests.faults.hub import Rule
from tests.faults.models import digest_tree

FILES: Files = {"README.md": b"# A model", "big.bin": 700_000, "config.json": b"{}"}
# Parsed in a process of its own: one of no tensors.
PARSED: Files = {**FILES, "model.safetensors": (2).to_bytes(8, "little") + b"{}"}


@contextmanager
def locked(world: World, table: str) -> Iterator[None]:
    """Let whoever reads a table of the manager's wait."""
    url = (world.stack.dir.secrets / "database-url").read_text().strip()
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(url))
        transaction = connection.transaction()
        runner.run(transaction.start())
        runner.run(connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
        try:
            yield
        finally:
            runner.run(transaction.rollback())
            runner.run(connection.close())


@contextmanager
def verifiers_standing(world: World) -> Iterator[None]:
    """Let the processes that parse files stand still: what is to be verified waits."""
    worker = Path(f"/proc/{world.stack.pids['worker']}/task")
    children = [int(child) for file in worker.glob("*/children") for child in file.read_text().split()]
    assert children, "no verifier runs"
    for child in children:
        os.kill(child, signal.SIGSTOP)
    try:
        yield
    finally:
        for child in children:
            os.kill(child, signal.SIGCONT)


def granted(world: World) -> Person:
    """Make a user who may import into the artifact storage by a grant, which is looked up each time."""
    person = world.person()
    world.rows(
        """INSERT INTO user_grants (user_id, permission)
           SELECT user_id, 'artifact:import' FROM api_tokens WHERE token_hash = encode(sha256($1), 'hex')""",
        person.token.encode(),
    )
    return person


def status(world: World, revision: dict[str, Any]) -> str:
    return str(world.revision(revision["id"])["status"])


def stall(world: World, model: str) -> None:
    world.hub.set(Rule(path=f"{model}/resolve/.*big.bin", stall_after=1000))


def cancel(world: World, revision: dict[str, Any]) -> None:
    world.stack.graphql(
        """mutation ($id: ID!) { cancelImportArtifact(input: {artifactRevisionId: $id}) {
             artifactRevision { id } } }""",
        {"id": revision["id"]},
    )


def decide(world: World, verb: str, revision: dict[str, Any]) -> None:
    """Approve or reject."""
    world.stack.graphql(
        f"mutation ($id: ID!) {{ {verb}ArtifactRevision(input: {{artifactRevisionId: $id}}) {{ __typename }} }}",
        {"id": revision["id"]},
    )


def test_each_status_follows_the_one_before(world: World) -> None:
    model, person = world.model(PARSED), granted(world)
    revision = world.scan(model)
    assert status(world, revision) == "SCANNED"

    stall(world, model.id)
    (task_id,) = world.order([revision["id"]])
    world.bytes_flow(model, 1000)
    assert status(world, revision) == "PULLING"
    cancel(world, revision)
    assert world.finished(str(task_id))["status"] == "CANCELLED"
    assert status(world, revision) == "SCANNED"

    world.hub.clear()
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", flip_at=5))
    (task_id,) = world.order([revision["id"]])
    assert world.finished(str(task_id))["status"] == "FAILED"
    assert status(world, revision) == "FAILED"

    world.hub.clear()
    # A cancel ends the process that parses a file just then; from here on one runs.
    assert world.bring(world.model(PARSED), world.folder())["status"] == "SUCCEEDED"
    stall(world, model.id)
    (task_id,) = world.order([revision["id"]], by=person)
    world.bytes_flow(model, 1000)
    assert status(world, revision) == "PULLING"
    with locked(world, "user_grants"):
        with verifiers_standing(world):
            world.hub.clear()
            wait_until(lambda: status(world, revision) == "PULLED", "it is not pulled")
        # Everything is there and verified; whether it may be published is being asked.
        wait_until(lambda: status(world, revision) == "VERIFYING", "it is not verified")
        assert not (world.stack.dir.storage / model.id).exists()
    assert world.finished(str(task_id))["status"] == "SUCCEEDED"
    assert status(world, revision) == "AVAILABLE"

    model.becomes({**PARSED, "config.json": b'{"auto_map": {"AutoModel": "modeling.Model"}}'})
    world.scan(model)
    assert status(world, revision) == "AVAILABLE"
    (task_id,) = world.order([revision["id"]])
    wait_until(lambda: status(world, revision) == "NEEDS_APPROVAL", "nobody is asked")
    decide(world, "reject", revision)
    assert world.finished(str(task_id))["error"]["code"] == "REJECTED"
    assert status(world, revision) == "AVAILABLE", "the good copy is still there"
    world.stack.graphql(
        "mutation ($id: ID!) { cleanupArtifactRevisions(input: {artifactRevisionIds: [$id]}) { __typename } }",
        {"id": revision["id"]},
    )
    assert status(world, revision) == "SCANNED"
    for verb, end in (("reject", "REJECTED"), ("approve", "AVAILABLE")):
        (task_id,) = world.order([revision["id"]])
        wait_until(lambda: status(world, revision) == "NEEDS_APPROVAL", "nobody is asked")
        decide(world, verb, revision)
        world.finished(str(task_id))
        assert status(world, revision) == end


def test_an_upstream_change_is_imported_anew_and_the_status_never_lies(world: World) -> None:
    model = world.model(FILES)
    revision = world.scan(model)
    assert world.bring(model)["status"] == "SUCCEEDED"
    filled = world.stack.dir.storage / model.id / "main"
    first = digest_tree(filled)
    model.becomes({"README.md": b"# Another", "big.bin": 310_000})
    again = world.scan(model)
    assert (again["id"], again["status"]) == (revision["id"], "AVAILABLE")
    assert (again["digest"] != revision["digest"], again["readme"]) == (True, "# Another")

    world.hub.forget()
    stall(world, model.id)
    (task_id,) = world.order([revision["id"]])
    world.bytes_flow(model, 1000)
    assert status(world, revision) == "PULLING"
    cancel(world, revision)
    assert world.finished(str(task_id))["status"] == "CANCELLED"
    assert status(world, revision) == "AVAILABLE"
    assert digest_tree(filled) == first

    world.hub.clear()
    (task_id,) = world.order([revision["id"]])
    assert world.finished(str(task_id))["status"] == "SUCCEEDED"
    assert digest_tree(filled) == model.digests
    assert world.order([revision["id"]]) == [None], "nothing is left to do"
    assert world.rows("SELECT FROM import_tasks WHERE id = $1", task_id)


def test_lists_show_what_an_import_left(world: World) -> None:
    """A18: readme, digest and verification are there, in lists too, whose pages are walked by cursor."""
    models = [world.model(FILES) for _ in range(3)]
    tasks = [world.bring(model) for model in models]
    assert {task["status"] for task in tasks} == {"SUCCEEDED"}
    page = """query ($names: [ArtifactFilter!], $after: String) {
      artifacts(filter: {OR: $names}, first: 1, after: $after) {
        count pageInfo { hasNextPage endCursor }
        edges { node { name revisions { edges { node {
          readme digest size status verificationResult { verifiers { name result { success scannedCount } } } } } } } } } }"""
    names = [{"name": {"equals": model.id}} for model in models]
    seen, after = [], None
    while True:
        found = world.stack.graphql(page, {"names": names, "after": after})["artifacts"]
        seen += [edge["node"] for edge in found["edges"]]
        assert found["count"] == len(models)
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            break
    assert sorted(node["name"] for node in seen) == sorted(model.id for model in models)
    for node in seen:
        (edge,) = node["revisions"]["edges"]
        shown = edge["node"]
        assert (shown["readme"], shown["status"]) == ("# A model", "AVAILABLE")
        assert (len(shown["digest"]), shown["size"]) == (40, str(700_000 + 9 + 2))
        verifiers = shown["verificationResult"]["verifiers"]
        assert {one["name"] for one in verifiers} >= {"integrity"}
        assert all(one["result"]["success"] for one in verifiers)
        assert max(one["result"]["scannedCount"] for one in verifiers) == len(FILES)
