"""Taking a revision out of an artifact storage again, whatever kind of storage it is."""

from pathlib import Path

import pytest

from proxy_client.errors import BadRequest, PathRefused
from storage_proxy.storages.vfs import VFSStorage
from tests.storages.models import OVERWRITE, Model, Place, look

pytestmark = pytest.mark.anyio

DESTINATION = "org/model/main"
BIG = bytes(20 << 20) + b"end"
archives = pytest.mark.parametrize("place", ["vfs", "s3"], indirect=True)


async def files(place: Place) -> set[str]:
    return {path for path in await place.visible() if ".stowage" not in path}


@archives
async def test_it_takes_what_was_imported_and_nothing_else(place: Place) -> None:
    storage = place.storage
    model = Model({"a": b"1", "changed": b"2", "theirs": b"3", "deep/er/big": BIG})
    await place.put({f"{DESTINATION}/theirs": b"3"})
    await model.bring(storage, DESTINATION)
    await Model({"a": b"fp16"}).bring(storage, f"{DESTINATION}-fp16")
    await place.put({f"{DESTINATION}/changed": b"by a user", f"{DESTINATION}/mine": b"m"})
    manifest = await storage.unpublish(DESTINATION, "org/model", "main")
    assert manifest is not None
    assert {path for path in await place.visible() if "-fp16/" not in path} == {
        f"{DESTINATION}/{name}" for name in ("changed", "theirs", "mine")
    }
    assert (await place.visible())[f"{DESTINATION}-fp16/a"] == b"fp16"
    assert await storage.unpublish(DESTINATION, "org/model", "main") is None


@archives
async def test_it_leaves_what_another_model_lists(place: Place) -> None:
    await Model({"a": b"1", "b": b"2"}).bring(place.storage, "shared")
    await Model({"a": b"1"}, model_id="org/other").bring(place.storage, "shared", OVERWRITE)
    await place.storage.unpublish("shared", "org/model", "main")
    assert await files(place) == {"shared/a"}


@archives
async def test_another_version_or_a_place_that_is_not_there_is_nothing_to_do(place: Place) -> None:
    await Model({"a": b"1"}).bring(place.storage, DESTINATION)
    for path, version in ((DESTINATION, "v2"), ("org/model/v2", "v2"), (f"{DESTINATION}/a", "main")):
        assert await place.storage.unpublish(path, "org/model", version) is None
    assert await files(place) == {f"{DESTINATION}/a"}


@archives
async def test_a_path_that_leads_out_is_refused(place: Place) -> None:
    for path in ("../other", "/etc", "a/../b", ""):
        with pytest.raises(PathRefused):
            await place.storage.unpublish(path, "org/model", "main")


@archives
async def test_what_is_gone_can_be_imported_again(place: Place) -> None:
    for _ in range(2):
        await Model({"a": b"1", "b/c": b"2"}).bring(place.storage, DESTINATION)
        assert await place.storage.unpublish(DESTINATION, "org/model", "main")
        assert await place.visible() == {}


async def test_no_empty_folder_is_left_in_a_directory(mount: Path) -> None:
    storage = VFSStorage("archive", mount)
    (mount / "org/other").mkdir(parents=True)
    await Model({"a": b"1", "b/c/d": b"2"}).bring(storage, DESTINATION)
    await storage.unpublish(DESTINATION, "org/model", "main")
    assert {path for path in look(mount) if not path.startswith(".staging")} == {"org", "org/other"}


async def test_what_a_link_leads_to_is_left_alone(mount: Path, tmp_path: Path) -> None:
    storage = VFSStorage("archive", mount)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"1")
    await Model({"sub/a": b"1"}).bring(storage, DESTINATION)
    (mount / DESTINATION / "sub/a").unlink()
    (mount / DESTINATION / "sub").rmdir()
    (mount / DESTINATION / "sub").symlink_to(outside)
    await storage.unpublish(DESTINATION, "org/model", "main")
    assert (outside / "a").read_bytes() == b"1"


@pytest.mark.parametrize("place", ["vfolder"], indirect=True)
async def test_a_users_folder_is_never_cleaned_up(place: Place) -> None:
    await Model({"a": b"1"}).bring(place.storage, DESTINATION)
    with pytest.raises(BadRequest, match="no artifact storage"):
        await place.storage.unpublish(DESTINATION, "org/model", "main")
    with pytest.raises(BadRequest, match="no URLs"):
        await place.storage.presign("GET", DESTINATION, "a", 60)
    assert await files(place) == {f"{DESTINATION}/a"}
