"""A manager's world: its database with some rows in it, its settings, and two storage proxies that stand in."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manager.db import Database
from tests.manager.stand_in import SECRET, StandInProxy
from tests.manager.world import World, settings_in


@pytest.fixture
async def database(manager_database_url: str) -> AsyncIterator[Database]:
    opened = Database(manager_database_url)
    yield opened
    await opened.close()


@pytest.fixture
async def world(tmp_path: Path, database: Database) -> AsyncIterator[World]:
    proxies = {name: StandInProxy(name) for name in ("near", "far")}
    await asyncio.gather(*(proxy.start() for proxy in proxies.values()))
    settings = settings_in(tmp_path, {name: f"{name}-{SECRET}" for name in proxies})
    yield await World(database, settings, proxies).populated()
    await asyncio.gather(*(proxy.client.aclose() for proxy in proxies.values()))
    await asyncio.gather(*(proxy.stop() for proxy in proxies.values()))
