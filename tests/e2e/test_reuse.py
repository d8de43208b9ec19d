"""Bytes that the proxy has already are not fetched again, and never taken out of a user's folder."""

from uuid import UUID

from tests.e2e.world import World, wait_until
from tests.faults.hub import Rule

BIG = 9 << 20
FILES = {"config.json": b'{"reuse": true}', "weights/big.bin": BIG, "empty.txt": b""}


def reused(world: World, task_id: str) -> int:
    """Return what the proxy's report counts as reused."""
    found: int = world.proxy("GET", f"/imports/{task_id}").json()["bytes_reused"]
    return found


def waits(world: World, task_id: str) -> bool:
    """Tell whether an import waits for what another one is fetching."""
    (row,) = world.rows("SELECT waits_for FROM stowage_proxy.imports WHERE task_id = $1", UUID(task_id))
    return bool(row["waits_for"])


def test_what_an_artifact_storage_holds_is_copied_into_a_folder(world: World) -> None:
    model, folder = world.model(FILES | {"a.json": b'{"reuse": 1}'}), world.folder()
    assert world.bring(model)["status"] == "SUCCEEDED"
    world.hub.forget()

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert world.hub.downloads(model.id) == []
    assert reused(world, task["id"]) == sum(len(model.file(path)) for path in model.digests)
    stored = next(
        path for path in world.storages() for path in path.rglob(f"{model.id}/main/weights/big.bin")
    )
    copied = folder.path / model.id / "main" / "weights" / "big.bin"
    assert (stored.stat().st_ino, stored.stat().st_nlink) != (copied.stat().st_ino, 2)


def test_a_damaged_copy_in_an_artifact_storage_is_not_taken(world: World) -> None:
    model, folder = world.model(FILES | {"b.json": b'{"reuse": 2}'}), world.folder()
    assert world.bring(model)["status"] == "SUCCEEDED"
    stored = next(
        path for path in world.storages() for path in path.rglob(f"{model.id}/main/weights/big.bin")
    )
    with stored.open("r+b") as file:
        file.write(b"damaged")
    world.hub.forget()

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert {request.path.rpartition("/")[2] for request in world.hub.downloads(model.id)} == {"big.bin"}


def test_a_users_folder_is_never_a_source(world: World) -> None:
    content = {"c.json": b'{"reuse": 3}', "weights/own.bin": b"mine" * 300_000}
    model, first, second = world.model(content), world.folder(), world.folder()
    assert world.bring(model, first)["status"] == "SUCCEEDED"
    world.hub.forget()

    task = world.bring(model, second)

    assert task["status"] == "SUCCEEDED"
    assert reused(world, task["id"]) == 0
    assert len(world.hub.downloads(model.id)) == len(content)


def test_a_forced_import_fetches_everything(world: World) -> None:
    model, folder = world.model(FILES | {"d.json": b'{"reuse": 4}'}), world.folder()
    assert world.bring(model)["status"] == "SUCCEEDED"
    world.hub.forget()

    task = world.bring(model, folder, force=True)

    assert task["status"] == "SUCCEEDED"
    assert reused(world, task["id"]) == 0
    # All but the empty one; a large one may come in parts.
    assert len({request.path for request in world.hub.downloads(model.id)}) == len(FILES)


def test_two_imports_of_one_revision_at_once_fetch_its_bytes_once(world: World) -> None:
    content = {f"part-{number}.bin": (b"%d" % number) * (1 << 20) for number in range(6)}
    model, first, second = world.model(content), world.folder(), world.folder()
    world.hub.set(Rule(path=f"{model.id}/resolve/", stall_after=1000))
    begun = world.begin(model, first)
    world.bytes_flow(model, 1000)
    other = world.begin(model, second)
    wait_until(lambda: waits(world, other), "the second import waits for the first")
    world.hub.clear()

    tasks = [world.finished(begun), world.finished(other)]

    assert [task["status"] for task in tasks] == ["SUCCEEDED", "SUCCEEDED"]
    assert first.digests(f"{model.id}/main") == second.digests(f"{model.id}/main") == model.digests
    assert reused(world, other) == sum(map(len, content.values()))


def test_who_waits_for_an_import_that_is_cancelled_fetches_itself(world: World) -> None:
    content = {f"part-{number}.bin": (b"%d" % number) * (1 << 20) for number in range(3)}
    model, first, second = world.model(content), world.folder(), world.folder()
    world.hub.set(Rule(path=f"{model.id}/resolve/", stall_after=1000))
    begun = world.begin(model, first)
    world.bytes_flow(model, 1000)
    other = world.begin(model, second)
    wait_until(lambda: waits(world, other), "the second import waits for the first")
    world.cancel(begun)
    world.hub.clear()

    assert world.finished(other)["status"] == "SUCCEEDED"
    assert second.digests(f"{model.id}/main") == model.digests
    assert world.finished(begun)["status"] == "CANCELLED"
