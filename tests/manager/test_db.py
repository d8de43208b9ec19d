"""Sessions that survive PostgreSQL's restart, and what cannot be kept in it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from manager.db import Database, storable
from manager.models import User
from proxy_client import errors
from tests.cancelling import cancel_early_and_late, insist_on_no_connection
from tests.conftest import PostgresServer

pytestmark = pytest.mark.anyio


async def test_a_transaction_is_all_or_nothing(database: Database) -> None:
    async def break_off() -> None:
        async with database.begin() as session:
            session.add(User(email="a@example.org"))
            await session.flush()
            raise KeyError

    with pytest.raises(KeyError):
        await break_off()
    async with database.read() as session:
        assert (await session.scalars(select(User))).all() == []


async def test_a_reading_session_cannot_write(database: Database) -> None:
    with pytest.raises(DBAPIError, match="read-only"):
        async with database.read() as session:
            await session.execute(text("DELETE FROM users"))
    async with database.begin() as session:
        session.add(User(email="a@example.org"))


async def test_an_error_of_the_database_tells_no_values(database: Database) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with database.read() as session:
            await session.execute(text("SELECT 1 / (:planted = 'x')::int, :planted"), {"planted": "a-secret"})
    assert "a-secret" not in str(caught.value)


async def test_times_are_utc(database: Database) -> None:
    async with database.read() as session:
        assert await session.scalar(text("SHOW timezone")) == "UTC"


async def test_connections_that_died_are_replaced(
    database: Database, postgres_server: PostgresServer
) -> None:
    async with database.read() as session:
        name = await session.scalar(text("SELECT current_database()"))
    postgres_server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    async with database.read() as session:
        assert await session.scalar(text("SELECT 1")) == 1


async def test_a_connection_that_dies_in_a_transaction_is_unavailable(
    database: Database, postgres_server: PostgresServer
) -> None:
    async def lose() -> None:
        async with database.begin() as session:
            pid = await session.scalar(text("SELECT pg_backend_pid()"))
            postgres_server.execute(f"SELECT pg_terminate_backend({pid})")
            await session.execute(text("SELECT 1"))

    with pytest.raises(errors.Unavailable):
        await lose()


async def test_a_server_that_is_not_there_is_unavailable(manager_database_url: str) -> None:
    nowhere = Database("postgresql://nobody@127.0.0.1:1/nothing")
    with pytest.raises(errors.Unavailable):
        async with nowhere.read() as session:
            await session.execute(text("SELECT 1"))
    await nowhere.close()


Uses = dict[str, Callable[[Database], AbstractAsyncContextManager[Any]]]
USES: Uses = {"begin": Database.begin, "read": Database.read, "connection": Database.connection}


@asynccontextmanager
async def opened(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, pool_size=2)
    try:
        yield database
    finally:
        await database.close()


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("first", [True, False], ids=["the first use", "a later use"])
async def test_a_use_that_is_cancelled_loses_no_connection(
    manager_database_url: str, use: str, first: bool
) -> None:
    async def once(database: Database) -> None:
        async with USES[use](database) as session:
            await session.execute(text("SELECT 1"))

    async def use_it() -> None:
        async with opened(manager_database_url) as database:
            try:
                await once(database)
            finally:
                assert database.engine.pool.checkedout() == 0

    if first:
        assert await cancel_early_and_late(use_it) > 10
    else:
        async with opened(manager_database_url) as database:
            await once(database)
            await cancel_early_and_late(lambda: once(database))
            assert database.engine.pool.checkedout() == 0
    await insist_on_no_connection(manager_database_url)


@pytest.mark.parametrize("use", USES)
async def test_closing_waits_for_what_ends_and_lets_nothing_begin(
    manager_database_url: str, use: str
) -> None:
    database, asking = Database(manager_database_url), asyncio.Event()

    async def ask() -> None:
        async with USES[use](database) as session:
            await session.execute(text("SELECT 1"))
            asking.set()
            await session.execute(text("SELECT pg_sleep(60)"))

    task = asyncio.create_task(ask())
    await asking.wait()
    task.cancel()
    await database.close()

    assert task.done()
    with pytest.raises(errors.Unavailable):
        async with USES[use](database):
            pass
    with suppress(asyncio.CancelledError):
        await task
    await insist_on_no_connection(manager_database_url)


def test_nul_characters_are_replaced_wherever_they_are() -> None:
    assert storable({"a\0": ["b\0", 1, None, {"c": "\0"}]}) == {
        "a\ufffd": ["b\ufffd", 1, None, {"c": "\ufffd"}]
    }
