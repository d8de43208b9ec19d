"""A look at a vfolder before an import, and at the models in it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from proxy_client.wire import ImportPreview, VFolderID
from storage_proxy.storages.volume_adapter import VolumeStorageAdapter
from storage_proxy.volumes import preview as previews
from storage_proxy.volumes.vfs import VFSVolume, folder_path
from tests.storages.models import Model, chunks, look, put

pytestmark = pytest.mark.anyio

FILES = {"config.json": b"{}", "weights/a.bin": b"a" * 1000, "weights/b.bin": b"b" * 500}
MODEL = Model(FILES)
PATH = "org/model/main"
TOTAL = 1502


@pytest.fixture
async def storage(volume: VFSVolume, vfid: VFolderID) -> VolumeStorageAdapter:
    await volume.create_vfolder(vfid)
    return VolumeStorageAdapter("storage", volume, vfid)


@pytest.fixture
def root(mount: Path, vfid: VFolderID) -> Path:
    return mount / folder_path(vfid)


def told(seen: ImportPreview) -> tuple[int, dict[str, str], bool]:
    assert seen.total_bytes == TOTAL
    return seen.missing_bytes, {each.path: each.reason for each in seen.conflicts}, seen.truncated


async def test_nothing_there_brings_everything(
    volume: VFSVolume, vfid: VFolderID, storage: VolumeStorageAdapter, root: Path
) -> None:
    assert told(await volume.preview(vfid, MODEL.plan(PATH))) == (TOTAL, {}, False)
    assert told(await volume.preview(vfid, MODEL.plan("/"))) == (TOTAL, {}, False)
    assert look(root) == {}
    assert storage.name == "storage"


async def test_what_an_import_left_is_there_and_in_nobodys_way(
    volume: VFSVolume, vfid: VFolderID, storage: VolumeStorageAdapter, root: Path
) -> None:
    await MODEL.bring(storage, PATH)
    before = look(root)
    assert told(await volume.preview(vfid, MODEL.plan(PATH))) == (0, {}, False)
    newer = Model(FILES | {"weights/a.bin": b"A" * 1000}, revision="main")
    assert told(await volume.preview(vfid, newer.plan(PATH))) == (1000, {}, False)
    assert look(root) == before


async def test_the_users_own_and_another_models_files_are_conflicts(
    volume: VFSVolume, vfid: VFolderID, storage: VolumeStorageAdapter, root: Path
) -> None:
    await Model({"config.json": b"[]"}, model_id="org/other").bring(storage, PATH)
    put(root / PATH, {"weights/a.bin": b"mine"})
    missing, conflicts, _ = told(await volume.preview(vfid, MODEL.plan(PATH)))
    assert missing == TOTAL
    assert conflicts == {
        f"{PATH}/config.json": "it belongs to org/other",
        f"{PATH}/weights/a.bin": "it was not imported",
    }


async def test_what_was_changed_since_its_import_is_a_conflict(
    volume: VFSVolume, vfid: VFolderID, storage: VolumeStorageAdapter, root: Path
) -> None:
    await MODEL.bring(storage, PATH)
    changed = root / PATH / "weights" / "a.bin"
    changed.write_bytes(b"x" * 1000)
    # As a file that is changed later than in the same instant.
    os.utime(changed, (2e9, 2e9))
    missing, conflicts, _ = told(await volume.preview(vfid, MODEL.plan(PATH)))
    assert (missing, conflicts) == (1000, {f"{PATH}/weights/a.bin": "it was changed since it was imported"})


async def test_a_file_where_a_folder_must_be_is_a_conflict(
    volume: VFSVolume, vfid: VFolderID, storage: VolumeStorageAdapter, root: Path
) -> None:
    await storage.stream_upload("org", chunks(b"x"))
    (conflict,) = (await volume.preview(vfid, MODEL.plan(PATH))).conflicts
    assert conflict.path == PATH
    assert "'org' is a file" in conflict.reason
    assert look(root) == {"org": b"x"}


async def test_what_is_too_much_to_read_or_to_show_is_said_to_be_left_out(
    volume: VFSVolume,
    vfid: VFolderID,
    storage: VolumeStorageAdapter,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put(root / PATH, FILES)
    assert told(await volume.preview(vfid, MODEL.plan(PATH))) == (0, {}, False)
    monkeypatch.setattr(previews, "MOST_READ", 600)
    assert told(await volume.preview(vfid, MODEL.plan(PATH))) == (1000, {}, True)
    monkeypatch.setattr(previews, "SECONDS", -1)
    assert told(await volume.preview(vfid, MODEL.plan(PATH))) == (TOTAL, {}, True)
    monkeypatch.undo()
    monkeypatch.setattr(previews, "MOST_SHOWN", 1)
    put(root / PATH, dict.fromkeys(FILES, b"mine"))
    _, conflicts, truncated = told(await volume.preview(vfid, MODEL.plan(PATH)))
    assert (len(conflicts), truncated) == (1, True)
    assert storage.name == "storage"


async def test_an_unchanged_model_is_not_read_again(
    volume: VFSVolume, vfid: VFolderID, storage: VolumeStorageAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await MODEL.bring(storage, PATH)
    # The small files whose sha256 the registry does not state; the other one is known by size and time.
    monkeypatch.setattr(previews, "MOST_READ", 502)
    assert told(await volume.preview(vfid, MODEL.plan(PATH))) == (0, {}, False)


async def test_models_are_told_from_their_manifests(
    volume: VFSVolume, vfid: VFolderID, storage: VolumeStorageAdapter, root: Path
) -> None:
    manifest = await MODEL.bring(storage, PATH)
    await Model({"x": b"x"}, model_id="org/other", revision="v1").bring(storage, "/")
    # Moved by the user, its manifest goes along.
    (root / "here").mkdir()
    shutil.move(root / "org" / "model" / "main", root / "here" / "bert")
    other, model = await volume.list_models(vfid)
    assert (other.artifact, other.version, other.path) == ("org/other", "v1", "/")
    assert model.model_dump() == {
        "artifact": "org/model",
        "version": "main",
        "path": "here/bert",
        "registry": "hub",
        "commit": manifest.commit,
        "size": TOTAL,
        "file_count": 3,
        "imported_at": manifest.imported_at,
        "task_id": manifest.task_id,
        "requested_by": manifest.requested_by,
    }


async def test_what_only_looks_like_a_manifest_is_passed_over(
    volume: VFSVolume, vfid: VFolderID, storage: VolumeStorageAdapter, root: Path, tmp_path: Path
) -> None:
    await MODEL.bring(storage, "/")
    (written,) = (root / ".stowage").iterdir()
    content = json.loads(written.read_text())
    hostile = (
        {"artifact": "<b>x</b>"},
        {"commit": "x"},
        {"files": [{"path": "../x", "size": 1, "sha256": "x"}]},
    )
    for number, change in enumerate(hostile):
        folder = root / f"{number}" / ".stowage"
        folder.mkdir(parents=True)
        name = "%3Cb%3Ex%3C%2Fb%3E@main.json" if "artifact" in change else written.name
        (folder / name).write_text(json.dumps(content | change))
    (tmp_path / ".stowage").mkdir()
    shutil.copy(written, tmp_path / ".stowage" / written.name)
    (root / "link").symlink_to(tmp_path)
    (root / "linked").mkdir()
    (root / "linked" / ".stowage").symlink_to(tmp_path / ".stowage")
    (root / "file").mkdir()
    (root / "file" / ".stowage").write_text("x")
    (root / os.fsdecode(b"\xff")).mkdir()
    assert [model.path for model in await volume.list_models(vfid)] == ["/"]


async def test_a_large_folder_is_searched_from_its_root(
    volume: VFSVolume, vfid: VFolderID, storage: VolumeStorageAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    await MODEL.bring(storage, "deep/er/still")
    await Model({"x": b"x"}, model_id="org/near").bring(storage, "near")
    assert len(await volume.list_models(vfid)) == 2
    monkeypatch.setattr(previews, "MOST_MODELS", 1)
    assert [model.artifact for model in await volume.list_models(vfid)] == ["org/near"]
    monkeypatch.setattr(previews, "MOST_ENTRIES", 1)
    assert await volume.list_models(vfid) == []
