"""What tests of several packages share: one PostgreSQL server a session, a database of its own a test."""

import asyncio
import itertools
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import pytest

from stowage.embedded_postgres import EmbeddedPostgres


class PostgresServer:
    """The session's server; `url(database)` is `postgresql://…`."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        self._names = itertools.count(1)

    def url(self, database: str) -> str:
        return self.server.url(database)

    def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database, a copy of the template when one is named; return its URL."""
        source = f' TEMPLATE "{template}"' if template else ""
        self.execute(f'CREATE DATABASE "{name}"{source}')
        return self.url(name)

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str, database: str = "postgres") -> None:
        async def run() -> None:
            connection = await asyncpg.connect(self.url(database))
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        wait_for(run())

    def fresh_name(self, purpose: str) -> str:
        return f"{purpose}_{next(self._names)}"


def wait_for(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end in an event loop of its own, whether or not one runs in this thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        pool.submit(asyncio.run, coroutine).result()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), durable=False)
    server.start()
    yield PostgresServer(server)
    server.stop()


@pytest.fixture(scope="session")
def manager_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the manager's tables, to be copied and never written to."""
    from migrations import migrate_manager  # noqa: PLC0415 -- only tests that ask for tables need it

    wait_for(migrate_manager(postgres_server.create_database("manager_template")))
    return "manager_template"


@pytest.fixture
def manager_database_url(postgres_server: PostgresServer, manager_template: str) -> Iterator[str]:
    """The URL of a fresh database with the manager's tables, empty."""
    name = postgres_server.fresh_name("manager")
    yield postgres_server.create_database(name, manager_template)
    postgres_server.drop_database(name)


@pytest.fixture
def proxy_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh database without any table."""
    name = postgres_server.fresh_name("proxy")
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)
