"""A destination that takes no more: disk, quota, a folder that goes, a permission that goes."""

from pathlib import Path

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


def test_a_permission_that_is_taken_away_mid_way_fails_before_anything_is_visible(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    guest = world.person()
    world.grant(folder, guest, "READ_WRITE")
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))
    task_id = world.begin(model, folder, by=guest)
    world.bytes_flow(model, 1000)

    world.rows("DELETE FROM vfolder_permissions WHERE vfolder_id = $1", folder.vfid.folder)
    world.hub.clear()
    task = world.finished(task_id)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "PERMISSION_REVOKED")
    world.insist_on_nothing_left(task, folder)
