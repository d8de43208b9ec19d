"""What the operator's configuration decides: which artifact storages the steps use, or none at all."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage_proxy.volumes.area import TREE, part_of
from tests.conftest import RunningStack
from tests.e2e.conftest import PATIENCE
from tests.e2e.world import Files, World, manifest, tree, wait_until
from tests.faults.hub import FaultHub, Rule
from tests.faults.models import digest_tree

FILES: Files = {"big.bin": 700_000, "config.json": b"{}", "nested/part.bin": 9000}
STEPS = ("scratch", "checked", "final")


@pytest.fixture(scope="module")
def own_world(tmp_path_factory: pytest.TempPathFactory, hubs: tuple[FaultHub, FaultHub]) -> Iterator[World]:
    """A stack of this module's own, with an artifact storage for each step."""
    data = tmp_path_factory.mktemp("configured") / "data"
    storages = {name: data / f"artifact-storage-{name}" for name in STEPS}
    for path in storages.values():
        path.mkdir(parents=True)
    tables = "".join(f'[artifact-storages.{name}]\npath = "{path}"\n' for name, path in storages.items())
    hub, mirror = hubs
    stack = RunningStack(data, hf_endpoint=hub.url, proxy_settings=PATIENCE + tables)
    try:
        yield World(stack, hub, mirror, data)
    finally:
        stack.stop()


@pytest.fixture
def configured(own_world: World) -> Iterator[World]:
    for hub in (own_world.hub, own_world.mirror):
        hub.forget()
    yield own_world
    own_world.hub.clear()


def configure(world: World, reservoir: dict[str, str] | None) -> None:
    """Give the manager another section [reservoir], or none, and start it anew."""
    path = world.stack.dir.manager_config
    present = path.read_text()
    section = "".join(f'{key} = "{value}"\n' for key, value in (reservoir or {}).items())
    wanted = f"[reservoir]\n{section}" if reservoir else ""
    wanted += re.sub(r"\[reservoir\]\n([a-z]+ = .*\n)*", "", present)
    if wanted == present:
        return
    path.write_text(wanted)
    pid = world.stack.kill("manager")
    wait_until(lambda: world.stack.pids["manager"] != pid, "the manager is not started again")
    world.stack.wait_ready()


def storage(world: World, step: str) -> Path:
    return world.stack.dir.path / f"artifact-storage-{step}"


def visible(root: Path) -> list[str]:
    return [name for name in tree(root) if not name.startswith(".staging")]


def holds(area: Path, path: str) -> bool:
    """Whether any byte of a file is in a staging area."""
    return (area / part_of(path)).exists() or (area / TREE / path).exists()


DISTINCT = {"proxy": "local", **dict(zip(("download", "verify", "archive"), STEPS, strict=True))}


def test_three_artifact_storages_serve_the_three_steps(configured: World) -> None:
    world = configured
    configure(world, DISTINCT)
    model = world.model(FILES)
    revision = world.scan(model)
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))
    (task_id,) = world.order([revision["id"]])
    world.bytes_flow(model, 1000)
    areas = world.staged(str(task_id))
    holding = {area.relative_to(world.stack.dir.path).parts[0] for area in areas if holds(area, "big.bin")}
    assert holding == {"artifact-storage-scratch"}, "DOWNLOAD writes to its own storage"

    world.hub.clear()
    task = world.finished(str(task_id))

    filled = storage(world, "final") / model.id / "main"
    assert (task["status"], task["error"]) == ("SUCCEEDED", None)
    assert task["destination"] == {"storageName": "final"}
    assert digest_tree(filled) == model.digests
    assert manifest(filled)["commit"] == revision["digest"]
    assert world.revision(revision["id"])["status"] == "AVAILABLE"
    assert len(world.hub.downloads(model.id)) == len(FILES)
    assert [visible(storage(world, step)) for step in ("scratch", "checked")] == [[], []]
    assert world.staged(str(task_id)) == []


@pytest.mark.parametrize("fault", [Rule(flip_at=0), Rule(status=404)], ids=["flipped byte", "404"])
def test_a_failure_leaves_none_of_the_three_anything(configured: World, fault: Rule) -> None:
    world = configured
    configure(world, DISTINCT)
    model = world.model(FILES)
    fault.path = f"{model.id}/resolve/.*big.bin"
    world.hub.set(fault)
    before = [visible(storage(world, step)) for step in STEPS]

    task = world.bring(model)

    assert task["status"] == "FAILED"
    assert [visible(storage(world, step)) for step in STEPS] == before
    assert world.staged(task["id"]) == []


def test_an_update_across_storages_fetches_and_keeps_what_it_must(configured: World) -> None:
    world = configured
    configure(world, DISTINCT)
    model = world.model(FILES)
    world.bring(model)
    model.becomes({"config.json": b'{"a": 2}', "big.bin": FILES["big.bin"]})
    world.hub.forget()

    task = world.bring(model)

    assert task["status"] == "SUCCEEDED"
    assert digest_tree(storage(world, "final") / model.id / "main") == model.digests
    assert [request.path.rpartition("/")[2] for request in world.hub.downloads(model.id)] == ["config.json"]
    assert world.staged(task["id"]) == []


def test_a_vfolder_import_needs_no_artifact_storage(configured: World) -> None:
    world = configured
    configure(world, None)
    model, folder = world.model(FILES), world.folder()

    task = world.bring(model, folder)

    assert (task["status"], task["error"]) == ("SUCCEEDED", None)
    assert folder.digests(f"{model.id}/main") == model.digests

    before = world.unchanged()
    answer = world.request([world.scan(world.model(FILES))["id"]])

    extensions = answer["errors"][0]["extensions"]
    assert (extensions["code"], extensions["field"]) == ("CONFLICT", "input.vfolderId")
    assert world.unchanged()["tasks"] == before["tasks"]
