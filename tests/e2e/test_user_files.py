"""No import changes or removes what a user put there, and what was imported stays good until the next is whole."""

import os
from pathlib import Path

import pytest

from tests.e2e.world import Files, Folder, Model, World, manifest, tree
from tests.faults.hub import Rule
from tests.faults.models import digest_tree

FILES: Files = {"config.json": b'{"a": 1}', "big.bin": 300_000, "nested/deep/part.bin": 9000}


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (1_600_000_000, 1_600_000_000))


def main_of(folder: Folder, model: Model) -> Path:
    return folder.path / model.id / "main"


# Files of the user's.


@pytest.mark.parametrize("path", [None, "/"], ids=["default path", "root"])
def test_the_users_own_files_stay_as_they_are(world: World, path: str | None) -> None:
    model, folder = world.model(FILES), world.folder()
    own = ["notes.txt", "nested/mine.txt", f"{model.id}/main/notes.txt", f"{model.id}/main/nested/mine.txt"]
    for name in own:
        put(folder.path / name, name.encode())
    before = tree(folder.path)

    task = world.bring(model, folder, **({"path": path} if path else {}))

    assert (task["status"], task["error"]) == ("SUCCEEDED", None)
    after = tree(folder.path)
    assert {name: after[name] for name in before} == before
    filled = folder.path / (path.strip("/") if path else f"{model.id}/main")
    arrived = digest_tree(filled)
    assert {name: arrived[name] for name in model.digests} == model.digests


def test_a_file_in_the_way_is_a_conflict_before_any_byte(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    put(main_of(folder, model) / "config.json", b"my own")
    before = folder.everything()

    task = world.bring(model, folder)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DESTINATION_CONFLICT")
    assert "config.json" in task["error"]["message"]
    assert "OVERWRITE" in task["error"]["message"]
    assert folder.everything() == before
    assert world.hub.downloads(model.id) == []
    assert world.staged(task["id"]) == []


def test_overwrite_replaces_what_is_in_the_way_and_nothing_else(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    put(main_of(folder, model) / "config.json", b"my own")
    put(main_of(folder, model) / "notes.txt", b"mine")

    task = world.bring(model, folder, onConflict="OVERWRITE")

    assert task["status"] == "SUCCEEDED"
    found = folder.digests(f"{model.id}/main")
    assert (main_of(folder, model) / "notes.txt").read_bytes() == b"mine"
    assert {name: found[name] for name in model.digests} == model.digests
    assert sorted(found) == sorted([*model.digests, "notes.txt"])


def test_a_folder_in_the_way_of_a_file_is_a_conflict_also_with_overwrite(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    put(main_of(folder, model) / "config.json" / "mine.txt", b"mine")
    before = folder.everything()

    task = world.bring(model, folder, onConflict="OVERWRITE")

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DESTINATION_CONFLICT")
    assert folder.everything() == before


def test_a_file_that_the_user_puts_in_the_way_while_bytes_flow_stays(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    put(main_of(folder, model) / "notes.txt", b"mine")
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))
    task_id = world.begin(model, folder)
    world.bytes_flow(model, 1000)

    put(main_of(folder, model) / "config.json", b"my own")
    before = folder.everything()
    world.hub.clear()
    task = world.finished(task_id)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DESTINATION_CONFLICT")
    assert folder.everything() == before


def test_a_link_to_the_outside_is_not_followed(world: World, tmp_path: Path) -> None:
    model, folder = world.model(FILES), world.folder()
    main_of(folder, model).mkdir(parents=True)
    (main_of(folder, model) / "nested").symlink_to(tmp_path)

    task = world.bring(model, folder, onConflict="OVERWRITE")

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DESTINATION_CONFLICT")
    assert list(tmp_path.iterdir()) == []


# Two models.


def test_two_models_in_one_root_never_overwrite_each_other(world: World) -> None:
    one, two = world.model(FILES), world.model({"config.json": b"other", "other.bin": 500})
    folder = world.folder()
    assert world.bring(one, folder, path="/")["status"] == "SUCCEEDED"
    before = folder.everything()

    task = world.bring(two, folder, path="/")

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DESTINATION_CONFLICT")
    assert "config.json" in task["error"]["message"]
    assert folder.everything() == before


def test_two_models_without_a_common_name_share_a_root(world: World) -> None:
    one, two = world.model({"one.bin": 1000}), world.model({"two.bin": 1000})
    folder = world.folder()

    tasks = [world.bring(one, folder, path="/"), world.bring(two, folder, path="/")]

    assert [task["status"] for task in tasks] == ["SUCCEEDED", "SUCCEEDED"]
    assert folder.digests() == one.digests | two.digests


# The same model again.


def test_a_repeat_fetches_nothing_that_is_there(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.bring(model, folder)
    before = tree(folder.path / model.id)
    world.hub.forget()

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert world.hub.downloads(model.id) == []
    assert (task["filesDone"], int(task["bytesDone"])) == (task["filesTotal"], int(task["bytesTotal"]))
    after = tree(folder.path / model.id)
    assert {name: after[name] for name in before if ".stowage/" not in name} == {
        name: before[name] for name in before if ".stowage/" not in name
    }


def test_a_repeat_fetches_only_what_is_missing(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.bring(model, folder)
    (main_of(folder, model) / "big.bin").unlink()
    world.hub.forget()

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert [request.path.rpartition("/")[2] for request in world.hub.downloads(model.id)] == ["big.bin"]


def test_force_fetches_everything_again(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.bring(model, folder)
    world.hub.forget()

    task = world.bring(model, folder, force=True)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert sorted(request.path.rpartition("/")[2] for request in world.hub.downloads(model.id)) == [
        "big.bin",
        "config.json",
        "part.bin",
    ]


def test_an_update_replaces_what_changed_and_removes_what_is_gone(world: World) -> None:
    model, folder = world.model(FILES | {"gone/old.bin": 700}), world.folder()
    world.bring(model, folder)
    put(main_of(folder, model) / "notes.txt", b"mine")
    model.becomes({"config.json": b'{"a": 2}', "big.bin": FILES["big.bin"], "new.bin": 800})
    world.hub.forget()

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert (main_of(folder, model) / "notes.txt").read_bytes() == b"mine"
    found = folder.digests(f"{model.id}/main")
    assert found.pop("notes.txt")
    assert found == model.digests
    assert not (main_of(folder, model) / "gone").exists()
    assert manifest(main_of(folder, model))["commit"] == task["commit"]
    fetched = {request.path.rpartition("/")[2] for request in world.hub.downloads(model.id)}
    assert fetched == {"config.json", "new.bin"}, "what did not change is not fetched"


def test_an_update_leaves_a_removed_file_that_the_user_changed(world: World) -> None:
    model, folder = world.model(FILES | {"gone.bin": 700}), world.folder()
    world.bring(model, folder)
    put(main_of(folder, model) / "gone.bin", b"my version")
    model.becomes(FILES)

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert (main_of(folder, model) / "gone.bin").read_bytes() == b"my version"


def test_an_update_of_a_file_that_the_user_changed_is_a_conflict(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.bring(model, folder)
    put(main_of(folder, model) / "config.json", b"my version")
    before = folder.everything()
    model.becomes(FILES | {"config.json": b'{"a": 2}'})

    task = world.bring(model, folder)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DESTINATION_CONFLICT")
    assert folder.everything() == before


def test_another_version_at_the_same_path_takes_the_place_of_the_first(world: World) -> None:
    half: Files = {"config.json": b"half", "half.bin": 600}
    model, folder = world.model(FILES, branches={"half": half}), world.folder()
    world.bring(model, folder, path="model")

    task = world.bring(model, folder, at="half", path="model")

    assert task["status"] == "SUCCEEDED"
    assert folder.digests("model") == digest_tree(model.path / "@half")
    assert manifest(folder.path / "model")["version"] == "half"


# A re-import that fails.


def test_a_failed_update_leaves_the_good_copy(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.bring(model, folder)
    put(main_of(folder, model) / "notes.txt", b"mine")
    before = folder.everything()
    model.becomes({"config.json": b'{"a": 2}', "big.bin": 310_000})
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", flip_at=5))

    task = world.bring(model, folder)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DIGEST_MISMATCH")
    assert folder.everything() == before


def test_a_failed_update_leaves_the_artifact_storage_available(world: World) -> None:
    model = world.model(FILES)
    revision = world.scan(model)
    world.bring(model)
    filled = world.stack.dir.storage / model.id / "main"
    before = tree(filled)
    model.becomes({"config.json": b'{"a": 2}', "big.bin": 310_000})
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", flip_at=5))

    task = world.bring(model)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "DIGEST_MISMATCH")
    assert world.revision(revision["id"])["status"] == "AVAILABLE"
    assert tree(filled) == before
    world.hub.clear()
    assert world.bring(model)["status"] == "SUCCEEDED"
    assert digest_tree(filled) == model.digests


def test_a_cancelled_update_leaves_the_good_copy(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    world.bring(model, folder)
    before = folder.everything()
    model.becomes({"config.json": b'{"a": 2}', "big.bin": 310_000})
    world.hub.set(Rule(path=f"{model.id}/resolve/.*big.bin", stall_after=1000))
    task_id = world.begin(model, folder)
    world.hub.wait_for(lambda: world.hub.sent(f"{model.id}/resolve/.*big.bin") > 300_000)

    world.cancel(task_id)

    assert world.finished(task_id)["status"] == "CANCELLED"
    assert folder.everything() == before
