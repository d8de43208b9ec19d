"""Making folders and looking into them."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from manager.auth import Caller
from manager.models import Project, ProjectMember, VFolder, VFolderOwnershipType, VFolderUsageMode
from manager.vfolders import VFolders
from proxy_client import errors
from tests.manager.stand_in import SECRET
from tests.manager.world import World, settings_in

pytestmark = pytest.mark.anyio


def vfolders(world: World) -> VFolders:
    return VFolders(world.database, world.settings, world.proxies)


async def make(world: World, name: str = "models", caller: Caller | None = None, **values: Any) -> VFolder:
    asked: dict[str, Any] = {"usage_mode": VFolderUsageMode.MODEL, "host": None, "project_id": None} | values
    return await vfolders(world).create(caller or world.user_a, name=name, **asked)


async def test_a_new_folder_is_a_row_and_a_directory_on_the_default_host(world: World) -> None:
    folder = await make(world)
    assert (folder.host, folder.usage_mode) == ("near:volume1", VFolderUsageMode.MODEL)
    assert folder.ownership_type is VFolderOwnershipType.USER
    assert folder.project is None
    assert world.near.vfolders == {f"user:{world.user_a.user_id}/{folder.id.hex}"}
    assert str(folder.id) in str((await world.rows())["vfolders"])
    assert "vfolder.create" in str((await world.rows())["audit_log"])


async def test_a_members_folder_belongs_to_the_project(world: World) -> None:
    project = Project(id=uuid4(), name="team")
    await world.add(project)
    with pytest.raises(errors.NotFound) as refusal:
        await make(world, project_id=project.id)
    assert refusal.value.field == "input.projectId"
    await world.add(ProjectMember(project_id=project.id, user_id=world.user_a.user_id))
    folder = await make(world, project_id=project.id, host="far:volume1")
    assert folder.project is not None
    assert (folder.project.name, folder.user_id) == ("team", None)
    assert world.far.vfolders == {f"project:{project.id}/{folder.id.hex}"}


async def test_a_name_that_is_none_is_refused(world: World) -> None:
    before = await world.rows()
    for name in ("", ".", "..", ".hidden", "a/b", "../x", "a..b", "a b", "a\nb", "a\0", "x" * 65):
        with pytest.raises(errors.BadRequest) as refusal:
            await make(world, name)
        assert refusal.value.field == "input.name"
    assert await world.rows() == before
    assert world.near.vfolders == set()


async def test_names_of_all_scripts_are_taken(world: World) -> None:
    for name in ("a", "Модели", "模型-1", "a.b_c-d", "x" * 64):
        assert (await make(world, name)).name == name


async def test_a_name_is_taken_once_also_in_a_race(world: World) -> None:
    answers = await asyncio.gather(*(make(world) for _ in range(6)), return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, VFolder)]
    assert len(made) == 1
    refusals = {type(answer) for answer in answers if not isinstance(answer, VFolder)}
    assert refusals == {errors.Conflict}
    assert world.near.vfolders == {made[0].vfid}
    await make(world, caller=world.user_b)


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("nowhere:volume1", "BAD_REQUEST"),
        ("near", "BAD_REQUEST"),
        ("near:../x", "BAD_REQUEST"),
        ("near:closed", "FORBIDDEN"),
    ],
)
async def test_a_host_that_cannot_be_used_is_refused(world: World, host: str, code: str) -> None:
    before = await world.rows()
    with pytest.raises(errors.StowageError) as refusal:
        await make(world, host=host)
    assert (refusal.value.code, refusal.value.field) == (code, "input.host")
    assert await world.rows() == before


async def test_without_a_default_host_one_must_be_named(world: World, tmp_path: Path) -> None:
    world.settings = settings_in(tmp_path, {"near": SECRET}, without="vfolder")
    with pytest.raises(errors.BadRequest) as refusal:
        await make(world)
    assert refusal.value.field == "input.host"
    await make(world, host="near:volume1")


async def test_no_half_folder_is_left_by_a_proxy_that_fails_and_a_retry_works(world: World) -> None:
    before = await world.rows()
    world.near.refuse["create_vfolder"] = errors.DiskFull("no room")
    with pytest.raises(errors.Unavailable, match="no room"):
        await make(world)
    await world.near.stop()
    with pytest.raises(errors.Unavailable):
        await make(world)
    assert await world.rows() == before
    world.near.refuse.clear()
    await world.near.start()
    await make(world)


async def test_files_and_usage_are_asked_of_the_folders_proxy(world: World) -> None:
    service = vfolders(world)
    for path in (None, "", "/"):
        (file,) = await service.files(world.user_a, world.folder, path)
        assert file.path == "a.bin"
    async with world.database.read() as session:
        folder = await session.get_one(VFolder, world.folder)
    assert (await service.usage(folder)).file_count == 1


async def test_a_folder_that_one_may_not_see_is_not_there(world: World) -> None:
    for folder in (world.folder, uuid4()):
        with pytest.raises(errors.NotFound) as refusal:
            await vfolders(world).files(world.user_b, folder, None)
        assert refusal.value.field == "vfolderId"


async def test_a_refused_path_is_named(world: World) -> None:
    with pytest.raises(errors.PathRefused) as refusal:
        await vfolders(world).files(world.user_a, world.folder, "../x")
    assert refusal.value.field == "path"


async def test_volumes_are_those_where_one_may_make_folders(world: World) -> None:
    service = vfolders(world)
    assert [host for host, _ in await service.volumes(world.user_a)] == ["far:volume1", "near:volume1"]
    await world.execute("DELETE FROM host_permissions WHERE host = 'far:volume1'")
    assert [host for host, _ in await service.volumes(world.user_a)] == ["near:volume1"]
    await world.near.stop()
    assert await service.volumes(world.user_a) == []
