"""A destination that takes no more: disk, quota, a folder that goes, a permission that goes."""

from pathlib import Path

import pytest

from tests.e2e.world import Files, Folder, World
from tests.faults.hub import Rule

SIZE = 1_000_000
FILES: Files = {"big.bin": SIZE, "config.json": b"{}", "small.bin": 3000}


# The disk.


def test_a_model_that_does_not_fit_fails_before_the_first_byte(world: World, disk: Path) -> None:
    model, folder = world.model({"big.bin": 6 << 20}), world.folder(host="local:small")

    task = world.bring(model, folder)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DISK_FULL")
    assert world.hub.downloads(model.id) == []
    world.insist_on_nothing_left(task, folder)


def test_a_disk_that_fills_up_mid_way_fails_and_harms_no_other_import(world: World, disk: Path) -> None:
    model, folder = world.model({"big.bin": 2 << 20, "config.json": b"{}"}), world.folder(host="local:small")
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=600_000))
    filler = disk / "filler"

    with world.meanwhile():
        task_id = world.begin(model, folder)
        world.bytes_flow(model, 600_000)
        try:
            fill(filler)
            world.hub.clear()
            task = world.finished(task_id)
            assert (task["status"], task["error"]["code"]) == ("FAILED", "DISK_FULL")
            assert "ENOSPC" in task["error"]["message"]
            assert str(disk) not in task["error"]["message"]
            world.insist_on_nothing_left(task, folder)
        finally:
            filler.unlink(missing_ok=True)

    assert world.bring(model, folder)["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests


def test_a_disk_without_a_free_byte_fails_with_its_code(world: World, disk: Path) -> None:
    model, folder = world.model(FILES), world.folder(host="local:small")
    filler = disk / "filler"
    try:
        fill(filler)
        task = world.bring(model, folder)
        assert (task["status"], task["error"]["code"]) == ("FAILED", "DISK_FULL")
        world.insist_on_nothing_left(task, folder)
    finally:
        filler.unlink(missing_ok=True)


def fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65536)
        except OSError:
            return


# The quota.


def set_quota(world: World, folder: Folder, limit: int | None) -> None:
    answer = world.proxy(
        "PUT", f"/volumes/volume1/quota-scopes/{folder.vfid.quota_scope}", {"limit_bytes": limit}
    )
    assert (answer.status_code, answer.json()["limit_bytes"]) == (200, limit)


def test_a_full_quota_fails_with_its_code_and_harms_nobody_else(world: World) -> None:
    model, folder = world.model(FILES), world.folder(world.person())
    set_quota(world, folder, SIZE)

    with world.meanwhile():
        task = world.bring(model, folder, by=folder.owner)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "QUOTA_EXCEEDED")
    assert str(SIZE) in task["error"]["message"]
    assert world.hub.downloads(model.id) == []
    world.insist_on_nothing_left(task, folder)

    set_quota(world, folder, None)
    assert world.bring(model, folder, by=folder.owner)["status"] == "SUCCEEDED"


def test_what_a_folder_holds_already_counts(world: World) -> None:
    one, two, folder = world.model(FILES), world.model(FILES), world.folder(world.person())
    set_quota(world, folder, 3 * SIZE // 2)
    assert world.bring(one, folder, by=folder.owner)["status"] == "SUCCEEDED"
    before = folder.everything()

    task = world.bring(two, folder, by=folder.owner)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "QUOTA_EXCEEDED")
    assert folder.everything() == before


def test_a_model_fits_to_the_last_byte(world: World) -> None:
    model, folder = world.model(FILES), world.folder(world.person())
    set_quota(world, folder, SIZE + 3002)

    assert world.bring(model, folder, by=folder.owner)["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests


def test_of_two_imports_that_fit_alone_the_later_one_is_refused(world: World) -> None:
    one, two, folder = world.model(FILES), world.model(FILES), world.folder(world.person())
    set_quota(world, folder, 3 * SIZE // 2)
    world.hub.set(Rule(path=f"{one.id}/resolve/.*big.bin", stall_after=1000))
    first = world.begin(one, folder, by=folder.owner)
    world.bytes_flow(one, 1000)

    task = world.bring(two, folder, by=folder.owner)
    assert (task["status"], task["error"]["code"]) == ("FAILED", "QUOTA_EXCEEDED")
    assert world.hub.downloads(two.id) == []

    world.hub.clear()
    assert world.finished(first)["status"] == "SUCCEEDED"
    assert folder.digests() == {
        f"{one.id}/main/{path}": digest for path, digest in one.digests.items()
    } | manifests(folder)


def manifests(folder: Folder) -> dict[str, str]:
    return {path: digest for path, digest in folder.digests().items() if "/.stowage/" in path}


@pytest.mark.parametrize("how", ["the limit", "the user"])
def test_a_quota_that_is_used_up_while_bytes_arrive_ends_the_import(world: World, how: str) -> None:
    model, folder = world.model({"big.bin": 10 * SIZE}), world.folder(world.person())
    set_quota(world, folder, 12 * SIZE)
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", rate=150_000))
    task_id = world.begin(model, folder, by=folder.owner)
    world.bytes_flow(model, 100_000)

    if how == "the limit":
        set_quota(world, folder, 5 * SIZE)
    else:
        (folder.path / "mine").write_bytes(b"m" * 3 * SIZE)
    task = world.finished(task_id)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "QUOTA_EXCEEDED")
    assert world.hub.sent(f"{model.id}/resolve") < 10 * SIZE
    (folder.path / "mine").unlink(missing_ok=True)
    world.insist_on_nothing_left(task, folder)


def test_a_limit_of_the_artifact_storage_that_shrinks_is_seen_before_it_is_published(world: World) -> None:
    model = world.model(FILES)
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))
    task_id = world.begin(model)
    world.bytes_flow(model, 1000)
    set_storage_limit = """mutation ($limit: ByteSize) {
      setQuota(input: {storageName: "archive", limitBytes: $limit}) { quota { limitBytes } } }"""
    try:
        world.stack.graphql(set_storage_limit, {"limit": "1000"})
        world.hub.clear()
        task = world.finished(task_id)
        answer = world.request([world.scan(world.model(FILES))["id"]])
    finally:
        world.stack.graphql(set_storage_limit, {"limit": None})

    assert (task["status"], task["error"]["code"]) == ("FAILED", "QUOTA_EXCEEDED")
    assert not any(list(storage.rglob(model.id)) for storage in world.storages())
    assert world.staged(task_id) == []
    assert answer["errors"][0]["extensions"]["code"] == "QUOTA_EXCEEDED"
    assert world.revision(task["artifactRevision"]["id"])["status"] in {"FAILED", "SCANNED"}


# The folder.


def test_a_folder_that_vanishes_mid_way_fails_and_is_not_made_again(world: World) -> None:
    model, folder = world.model(FILES), world.folder(world.person())
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))
    task_id = world.begin(model, folder, by=folder.owner)
    world.bytes_flow(model, 1000)

    folder.path.rmdir()
    world.hub.clear()
    task = world.finished(task_id)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "NOT_FOUND")
    assert not folder.path.exists()
    assert world.staged(task_id) == []
