"""The manager's tables: up, down, up again, and exactly those of the models."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from manager.db import Database, async_url
from manager.models import Base
from migrations import migrate_manager, migrate_proxy
from proxy_client import errors
from tests.conftest import PostgresServer

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


def drift(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def alembic(url: str, *arguments: str) -> str:
    environment = os.environ | {"STOWAGE_DATABASE_URL": url}
    command = [str(Path(sys.executable).with_name("alembic")), *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


async def test_the_migrated_tables_are_those_of_the_models(manager_database_url: str) -> None:
    database = Database(manager_database_url)
    async with database.engine.connect() as connection:
        assert await connection.run_sync(drift) == []
    await database.close()


async def test_a_shell_migrates_up_down_and_up(proxy_database_url: str) -> None:
    manager = ("--name", "manager")
    engine = create_async_engine(async_url(proxy_database_url), poolclass=NullPool)
    alembic(proxy_database_url, *manager, "upgrade", "head")
    alembic(proxy_database_url, *manager, "downgrade", "base")
    async with engine.connect() as connection:
        assert await connection.run_sync(tables) == {"alembic_version"}
    alembic(proxy_database_url, *manager, "upgrade", "head")
    assert "(head)" in alembic(proxy_database_url, *manager, "current")
    async with engine.connect() as connection:
        assert await connection.run_sync(drift) == []


async def test_any_number_of_processes_may_migrate_at_once(proxy_database_url: str) -> None:
    await asyncio.gather(*(migrate_manager(proxy_database_url) for _ in range(4)))
    await migrate_manager(proxy_database_url)
    engine = create_async_engine(async_url(proxy_database_url), poolclass=NullPool)
    async with engine.connect() as connection:
        assert await connection.run_sync(drift) == []


async def test_both_services_may_share_a_database(proxy_database_url: str) -> None:
    await migrate_proxy(proxy_database_url, "stowage_proxy")
    await migrate_manager(proxy_database_url)
    await migrate_proxy(proxy_database_url, "other_proxy")
    engine = create_async_engine(async_url(proxy_database_url), poolclass=NullPool)
    async with engine.connect() as connection:
        assert await connection.run_sync(drift) == []
        versions = [
            await connection.scalar(text(f"SELECT version_num FROM {schema}.alembic_version"))
            for schema in ("public", "stowage_proxy", "other_proxy")
        ]
    assert [version.partition("_")[0] for version in versions] == ["manager", "proxy", "proxy"]


async def test_a_database_of_a_newer_version_is_left_alone(
    postgres_server: PostgresServer, manager_database_url: str
) -> None:
    name = manager_database_url.rpartition("/")[2]
    postgres_server.execute("UPDATE alembic_version SET version_num = 'manager_9999'", name)
    with pytest.raises(errors.Conflict, match="newer Stowage"):
        await migrate_manager(manager_database_url)
