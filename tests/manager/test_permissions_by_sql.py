"""The statements of "Permissions" in docs/operations.md give what the page says."""

import re
from pathlib import Path

import pytest
from sqlalchemy import select, text

from manager.access import (
    CREATE_VFOLDER,
    host_allows,
    may_import_to_artifact_storage,
    require_project_member,
    writable_vfolder,
)
from manager.auth import Caller
from manager.models import Project, VFolderPermission
from proxy_client.errors import Forbidden, NotFound
from tests.manager.world import World

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def statements() -> list[str]:
    section = PAGE.read_text().partition("\n## Permissions\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)
    return [statement for block in blocks for statement in block.split(";") if statement.strip()]


async def run(world: World) -> None:
    async with world.database.begin() as session:
        for statement in statements():
            await session.execute(text(statement))


async def may_create(world: World, caller: Caller, host: str) -> bool:
    async with world.database.read() as session:
        return bool(await session.scalar(select(host_allows(caller, host, CREATE_VFOLDER))))


async def test_each_statement_gives_its_permission_and_may_be_repeated(world: World) -> None:
    alice = await world.user("alice@example.org")
    bob = await world.user("bob@example.org")
    folder = await world.make_folder(alice, "models", host="local:volume2")
    async with world.database.read() as session:
        with pytest.raises(Forbidden):
            await may_import_to_artifact_storage(session, alice)
        with pytest.raises(NotFound):
            await writable_vfolder(session, bob, folder)
    assert not await may_create(world, alice, "local:volume2")
    assert len(statements()) == 6
    await run(world)
    once = await world.rows()
    async with world.database.read() as session:
        await may_import_to_artifact_storage(session, alice)
        with pytest.raises(Forbidden):
            await may_import_to_artifact_storage(session, bob)
        project = await session.scalar(select(Project.id).where(Project.name == "research"))
        assert project is not None
        assert (await require_project_member(session, alice, project)).name == "research"
        with pytest.raises(NotFound):
            await require_project_member(session, bob, project)
        assert (await writable_vfolder(session, bob, folder)).permission is VFolderPermission.READ_WRITE
    assert [await may_create(world, who, "local:volume2") for who in (alice, bob)] == [True, True]
    assert [await may_create(world, who, "local:volume3") for who in (alice, bob)] == [True, False]
    await run(world)
    assert await world.rows() == once
