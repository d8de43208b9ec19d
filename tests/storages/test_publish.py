"""What appears where, what is replaced, what is in the way."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from proxy_client.errors import DestinationConflict, StorageFailure
from proxy_client.wire import OnConflict
from storage_proxy.storages.base import Manifest
from tests.storages.models import FAIL, OVERWRITE, Model, Storage, look, put

pytestmark = pytest.mark.anyio

FILES = {"config.json": b"{}", "weights/model.bin": b"w" * 1000, "weights/empty": b""}
MODEL = Model(FILES)
OTHER = Model({"config.json": b"{}", "other.bin": b"o"}, model_id="org/other")


def without_manifests(root: Path) -> dict[str, object]:
    return {path: found for path, found in look(root).items() if ".stowage" not in path.split("/")}


def files_of(root: Path) -> dict[str, object]:
    return {path: found for path, found in without_manifests(root).items() if found != "folder"}


def manifests(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".stowage").iterdir())


def untouched(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def preexisting(manifest: Manifest) -> set[str]:
    return {file.path for file in manifest.files if file.preexisting}


async def conflict(directory: Storage, model: Model, path: str, on_conflict: OnConflict = FAIL) -> str:
    """Import and expect a conflict, already at the first look; the folder stays as it was."""
    before = look(directory.root)
    with pytest.raises(DestinationConflict):
        await directory.storage.check_conflicts(model.plan(path), on_conflict)
    await model.stage(directory.storage, path)
    with pytest.raises(DestinationConflict) as raised:
        await directory.storage.publish(model.plan(path), model.staged(), on_conflict)
    assert not await directory.storage.publishing(model.task_id)
    await (await directory.storage.open_staging(model.task_id)).discard()
    assert look(directory.root) == before
    return raised.value.message


async def test_a_new_path_appears_with_its_parents_and_manifest(directory: Storage) -> None:
    manifest = await MODEL.bring(directory.storage, "org/model/main")
    root = directory.root / "org" / "model" / "main"
    assert files_of(root) == FILES
    assert manifests(root) == ["org%2Fmodel@main.json"]
    written = json.loads((root / ".stowage" / "org%2Fmodel@main.json").read_bytes())
    assert Manifest.model_validate(written) == manifest
    plan = MODEL.plan("org/model/main")
    assert (manifest.artifact, manifest.version, manifest.registry) == ("org/model", "main", "hub")
    assert (manifest.commit, manifest.task_id, manifest.requested_by) == (
        plan.commit,
        plan.task_id,
        plan.requested_by,
    )
    assert [file.path for file in manifest.files] == sorted(FILES)
    assert preexisting(manifest) == set()


async def test_the_neighbours_of_a_new_path_are_left_alone(directory: Storage) -> None:
    put(directory.root, {"org/mine": b"1", "mine": b"2"})
    await MODEL.bring(directory.storage, "org/model/main")
    await replace(MODEL, revision="v2", task_id=uuid4()).bring(directory.storage, "org/model/v2")
    assert (directory.root / "org" / "mine").read_bytes() == b"1"
    assert files_of(directory.root / "org" / "model" / "v2") == FILES


async def test_the_root_is_merged_into(directory: Storage) -> None:
    put(directory.root, {"mine": b"1", "weights/mine": b"2"})
    await MODEL.bring(directory.storage, "/")
    assert files_of(directory.root) == {**FILES, "mine": b"1", "weights/mine": b"2"}
    assert manifests(directory.root) == ["org%2Fmodel@main.json"]


async def test_an_import_repeated_changes_nothing_but_the_manifest(directory: Storage) -> None:
    await MODEL.bring(directory.storage, "a")
    before = [untouched(directory.root / "a" / path) for path in FILES]
    manifest = await replace(MODEL, task_id=uuid4()).bring(directory.storage, "a")
    assert [untouched(directory.root / "a" / path) for path in FILES] == before
    assert preexisting(manifest) == set()
    assert manifest.task_id != MODEL.task_id


async def test_the_same_bytes_are_kept_and_stay_the_users_for_ever(directory: Storage) -> None:
    put(directory.root, {"config.json": FILES["config.json"]})
    before = untouched(directory.root / "config.json")
    assert preexisting(await MODEL.bring(directory.storage, "/")) == {"config.json"}
    assert preexisting(await replace(MODEL, task_id=uuid4()).bring(directory.storage, "/")) == {"config.json"}
    assert untouched(directory.root / "config.json") == before
    without = Model({"weights/model.bin": b"w"}, revision="v2")
    await without.bring(directory.storage, "/")
    assert files_of(directory.root) == {"config.json": FILES["config.json"], "weights/model.bin": b"w"}
    # Another version of the same model still finds the user's file in its way, once it differs.
    message = await conflict(directory, Model({"config.json": b"[]"}, revision="v3"), "/")
    assert "'config.json' (it was not imported)" in message


async def test_a_newer_revision_replaces_and_removes_what_nobody_changed(directory: Storage) -> None:
    await MODEL.bring(directory.storage, "a")
    put(directory.root / "a", {"weights/mine": b"m"})
    newer = Model({"config.json": b"[1]", "new/deep/file": b"n"}, revision="v2")
    await newer.bring(directory.storage, "a")
    assert files_of(directory.root / "a") == {**newer.files, "weights/mine": b"m"}
    assert manifests(directory.root / "a") == ["org%2Fmodel@v2.json"]
    (directory.root / "a" / "weights" / "mine").unlink()
    put(directory.root / "a", {"weights/late": b""})
    await replace(MODEL, task_id=uuid4()).bring(directory.storage, "a", OVERWRITE)
    assert files_of(directory.root / "a") == {**FILES, "weights/late": b""}


async def test_folders_left_empty_go_and_only_those(directory: Storage) -> None:
    model = Model({"x/y/z/file": b"1", "kept": b"2"})
    await model.bring(directory.storage, "a")
    (directory.root / "a" / "x" / "mine").mkdir()
    (directory.root / "a" / "empty").mkdir()
    await Model({"kept": b"2"}).bring(directory.storage, "a")
    assert without_manifests(directory.root / "a") == {
        "x": "folder",
        "x/mine": "folder",
        "empty": "folder",
        "kept": b"2",
    }


async def test_a_removed_file_that_the_user_changed_stays(directory: Storage) -> None:
    await MODEL.bring(directory.storage, "a")
    put(directory.root / "a", {"config.json": b"[]", "weights/empty": b"not"})
    await Model({"weights/model.bin": FILES["weights/model.bin"]}).bring(directory.storage, "a")
    assert files_of(directory.root / "a") == {
        "config.json": b"[]",
        "weights/empty": b"not",
        "weights/model.bin": FILES["weights/model.bin"],
    }


async def test_a_file_that_the_user_changed_is_in_the_way(directory: Storage) -> None:
    await MODEL.bring(directory.storage, "a")
    put(directory.root / "a", {"config.json": b"[]"})
    message = await conflict(directory, Model({**FILES, "config.json": b"<>"}), "a")
    assert "'config.json' (it was changed since it was imported)" in message
    assert "onConflict: OVERWRITE" in message
    message = await conflict(directory, replace(MODEL, task_id=uuid4()), "a")
    assert "config.json" in message


async def test_a_file_that_the_user_removed_comes_back(directory: Storage) -> None:
    await MODEL.bring(directory.storage, "a")
    (directory.root / "a" / "config.json").unlink()
    await replace(MODEL, task_id=uuid4()).bring(directory.storage, "a")
    assert files_of(directory.root / "a") == FILES


async def test_a_message_names_five_files_and_counts_the_rest(directory: Storage) -> None:
    model = Model({f"file{number}": b"ours" for number in range(9)})
    put(directory.root, dict.fromkeys(model.files, b"mine"))
    message = await conflict(directory, model, "/")
    assert message.count("'file") == 5
    assert "and 4 more" in message


async def test_another_models_file_is_in_the_way_even_with_the_same_bytes(directory: Storage) -> None:
    await OTHER.bring(directory.storage, "/")
    message = await conflict(directory, MODEL, "/")
    assert "'config.json' (it belongs to org/other)" in message
    await MODEL.bring(directory.storage, "/", OVERWRITE)
    assert files_of(directory.root) == {**FILES, "other.bin": b"o"}
    assert manifests(directory.root) == ["org%2Fmodel@main.json", "org%2Fother@main.json"]
    # Neither takes away what the other one lists.
    await Model({"weights/model.bin": b"w"}).bring(directory.storage, "/")
    assert files_of(directory.root) == {"config.json": b"{}", "weights/model.bin": b"w", "other.bin": b"o"}


async def test_another_model_owns_a_path_only_while_its_bytes_lie_there(directory: Storage) -> None:
    await Model({"readme": b"one", "gone": b"one"}, model_id="org/one").bring(directory.storage, "/")
    await Model({"readme": b"two", "gone": b"two"}).bring(directory.storage, "/", OVERWRITE)
    await Model({"readme": b"two, changed"}).bring(directory.storage, "/")
    assert files_of(directory.root) == {"readme": b"two, changed"}
    message = await conflict(directory, Model({"readme": b"new"}, model_id="org/one"), "/")
    assert "'readme' (it belongs to org/model)" in message


async def test_what_a_user_wrote_over_another_models_file_is_the_users(directory: Storage) -> None:
    await OTHER.bring(directory.storage, "/")
    put(directory.root, {"config.json": b"mine"})
    assert "'config.json' (it was not imported)" in await conflict(directory, MODEL, "/")
    put(directory.root, {"config.json": b"[wanted]"})
    manifest = await Model({"config.json": b"[wanted]"}).bring(directory.storage, "/")
    assert preexisting(manifest) == {"config.json"}


async def test_overwrite_replaces_files_and_links_but_never_a_target(
    directory: Storage, tmp_path: Path
) -> None:
    (tmp_path / "target").write_bytes(b"target")
    put(directory.root, {"config.json": b"mine", "mine": b"m"})
    (directory.root / "weights").mkdir()
    (directory.root / "weights" / "model.bin").symlink_to(tmp_path / "target")
    message = await conflict(directory, MODEL, "/")
    assert "'weights/model.bin' (a link)" in message
    manifest = await MODEL.bring(directory.storage, "/", OVERWRITE)
    assert files_of(directory.root) == {**FILES, "mine": b"m"}
    assert (tmp_path / "target").read_bytes() == b"target"
    assert preexisting(manifest) == set()


def plant(path: Path, kind: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_bytes(b"mine")
    elif kind == "link":
        path.symlink_to("/etc")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root may make devices")


@pytest.mark.parametrize("on_conflict", [FAIL, OVERWRITE])
@pytest.mark.parametrize("kind", ["folder", "fifo", "device"])
@pytest.mark.parametrize("at", ["config.json", ".stowage/org%2Fmodel@main.json"])
async def test_what_is_no_file_is_always_in_the_way(
    directory: Storage, at: str, kind: str, on_conflict: OnConflict
) -> None:
    plant(directory.root / at, kind)
    message = await conflict(directory, MODEL, "/", on_conflict)
    assert "must be" in message
    assert "move them away" in message


@pytest.mark.parametrize("on_conflict", [FAIL, OVERWRITE])
@pytest.mark.parametrize("kind", ["file", "link", "fifo", "device"])
@pytest.mark.parametrize("at", ["weights", ".stowage"])
async def test_what_is_no_folder_is_always_in_the_way(
    directory: Storage, at: str, kind: str, on_conflict: OnConflict
) -> None:
    plant(directory.root / at, kind)
    message = await conflict(directory, MODEL, "/", on_conflict)
    assert "where a folder must be" in message
    assert "move them away" in message


@pytest.mark.parametrize("kind", ["file", "link"])
async def test_a_users_file_in_the_manifests_place_is_in_the_way(directory: Storage, kind: str) -> None:
    plant(directory.root / ".stowage" / "org%2Fmodel@main.json", kind)
    assert "no manifest" in await conflict(directory, MODEL, "/")
    await MODEL.bring(directory.storage, "/", OVERWRITE)
    assert files_of(directory.root) == FILES


async def test_a_destination_below_a_file_is_a_conflict(directory: Storage) -> None:
    put(directory.root, {"org": b"mine"})
    for path in ("org", "org/model", "org/model/main"):
        assert "must be a folder" in await conflict(directory, MODEL, path, OVERWRITE)


async def test_a_forged_manifest_gives_no_power_over_files(directory: Storage) -> None:
    put(directory.root, {"config.json": b"mine", "keep": b"kept"})
    hostile = {
        "artifact": "org/model",
        "version": "old",
        "registry": "x",
        "commit": "0" * 40,
        "task_id": str(uuid4()),
        "requested_by": str(uuid4()),
        "imported_at": "2026-01-01T00:00:00Z",
        "files": [
            {"path": "../../keep", "size": 4, "sha256": "0" * 64},
            {"path": "keep", "size": 4, "sha256": ""},
        ],
    }
    put(
        directory.root,
        {
            ".stowage/org%2Fmodel@old.json": json.dumps(hostile).encode(),
            ".stowage/copy.json": json.dumps(hostile | {"files": []}).encode(),
            ".stowage/broken.json": b"\xff{",
        },
    )
    await Model({"weights": b"w"}).bring(directory.storage, "/")
    assert files_of(directory.root) == {"config.json": b"mine", "keep": b"kept", "weights": b"w"}
    assert len(manifests(directory.root)) == 4
    await conflict(directory, MODEL, "/")


async def test_only_verified_bytes_are_published(directory: Storage) -> None:
    for path in ("new", "/"):
        model = replace(MODEL, task_id=uuid4())
        await model.stage(directory.storage, path)
        staged = directory.staging / str(model.task_id) / "tree" / "config.json"
        staged.write_bytes(b"[]")
        with pytest.raises(StorageFailure, match="not the verified one"):
            await directory.storage.publish(model.plan(path), model.staged(), FAIL)
        staged.unlink()
        with pytest.raises(StorageFailure, match="not the verified one"):
            await directory.storage.publish(model.plan(path), model.staged(), FAIL)
        lie = [file.model_copy(update={"size": 7}) for file in model.staged()]
        with pytest.raises(StorageFailure, match="not what was planned"):
            await directory.storage.publish(model.plan(path), lie, FAIL)
    assert look(directory.root) == {}


async def test_only_listed_files_are_published(directory: Storage) -> None:
    await Model({**FILES, "surplus/file": b"s"}, task_id=MODEL.task_id).stage(directory.storage, "a")
    await directory.storage.publish(MODEL.plan("a"), MODEL.staged(), FAIL)
    assert files_of(directory.root / "a") == FILES
    assert not (directory.root / "a" / "surplus").exists()


@pytest.mark.parametrize("path", ["a", "/"])
async def test_a_present_file_that_vanishes_is_a_conflict(directory: Storage, path: str) -> None:
    put(directory.root / path.strip("/"), {"config.json": FILES["config.json"]})
    await MODEL.stage(directory.storage, path, "config.json")
    (directory.root / path.strip("/") / "config.json").unlink()
    if path != "/":
        (directory.root / path).rmdir()
    before = look(directory.root)
    with pytest.raises(DestinationConflict, match=r"vanished|was removed"):
        await directory.storage.publish(MODEL.plan(path), MODEL.staged("config.json"), FAIL)
    assert look(directory.root) == before


async def test_a_present_file_is_read_once(directory: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await MODEL.bring(directory.storage, "a")
    old = 1_700_000_000
    for path in FILES:
        os.utime(directory.root / "a" / path, (old, old))
    again = replace(MODEL, task_id=uuid4())
    plan = again.plan("a")
    await again.stage(directory.storage, "a", *FILES)
    await directory.storage.present_files(plan)

    def read_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("storage_proxy.volumes.fsio.digest", read_again)
    assert len(await directory.storage.present_files(plan)) == 3
    await directory.storage.check_conflicts(plan, FAIL)
    await directory.storage.publish(plan, [], FAIL)


async def test_an_import_of_what_is_all_there_publishes_a_manifest(directory: Storage) -> None:
    put(directory.root / "a", FILES)
    manifest = await MODEL.bring(directory.storage, "a")
    assert preexisting(manifest) == set(FILES)
    assert manifests(directory.root / "a") == ["org%2Fmodel@main.json"]


async def test_the_longest_names_fit(directory: Storage) -> None:
    name = "n" * 255
    model = Model({f"{name}/{name}": b"1"}, revision="é" * 120)
    await model.bring(directory.storage, f"{name}/{name}")
    await replace(model, task_id=uuid4()).bring(directory.storage, f"{name}/{name}")
    await replace(model, task_id=uuid4(), files={f"{name}/{name}": b"2"}).bring(
        directory.storage, f"{name}/{name}"
    )
    assert files_of(directory.root / name / name) == {f"{name}/{name}": b"2"}
