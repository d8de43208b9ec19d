"""The manager's connections to PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import CollectionAggregate, Uuid, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from proxy_client.errors import Unavailable
from proxy_client.opening import opened

# Appendix A of the PostgreSQL manual: connection exceptions, shutdown and start-up, too many connections.
_LOST = ("08", "57P0", "53300")
_AWAY = "the database does not answer; try again in a moment"
_CONNECT_SECONDS = 5.0
# How long a use may take to end at the close: its rollback, and asyncpg's word to the server that it was cancelled.
_END_SECONDS = 5.0


def async_url(url: str) -> str:
    """Return a `postgresql://` URL as SQLAlchemy's asyncpg dialect wants it."""
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


class Database:
    """A pool of connections to the manager's database, whose sessions speak UTC.

    A server that restarts costs the requests of that moment (`Unavailable`), never the process: connections
    are tested before they are handed out.
    """

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        connect: dict[str, Any] = {
            "timeout": _CONNECT_SECONDS,
            "async_creator_fn": _connect,
            "server_settings": {"timezone": "UTC", "application_name": "stowage-manager"},
        }
        # The values of a statement that fails have no business in a log.
        hidden = {"hide_parameters": True, "connect_args": connect}
        self.engine = create_async_engine(
            async_url(url), pool_size=pool_size, max_overflow=0, pool_pre_ping=True, **hidden
        )
        self._alone = create_async_engine(
            async_url(url), poolclass=NullPool, isolation_level="AUTOCOMMIT", **hidden
        )
        self._writers = async_sessionmaker(self.engine, expire_on_commit=False)
        self._readers = async_sessionmaker(
            self.engine.execution_options(postgresql_readonly=True), expire_on_commit=False
        )
        self._closing = False
        self._uses = 0
        self._unused = asyncio.Event()
        self._unused.set()

    async def close(self) -> None:
        """Close all connections, once they are given back or have had their time; nothing can be opened any more.

        A request that is cancelled ends in tasks that nobody waits for (GraphQL gathers its fields), and what is
        given back to a pool that is gone stays open.
        """
        self._closing = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._unused.wait()
        await self.engine.dispose()
        await self._alone.dispose()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """Open one transaction, committed at the end and rolled back on an error.

        Rows stay usable after the commit. Raises `Unavailable` when PostgreSQL does not answer.
        """
        with self._use(), translated():
            async with self._writers.begin() as session:
                yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open one read-only transaction; a write in it is an error. Raises `Unavailable` as `begin` does."""
        with self._use(), translated():
            async with self._readers() as session:
                yield session

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection outside the pool in autocommit mode, for what holds it long: locks and listeners."""
        with self._use(), translated():
            async with self._alone.connect() as connection:
                yield connection

    @contextmanager
    def _use(self) -> Iterator[None]:
        if self._closing:
            raise Unavailable(_AWAY)
        self._uses += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._uses -= 1
            if not self._uses:
                self._unused.set()


async def _connect(*where: Any, **details: Any) -> asyncpg.Connection:
    return await opened(asyncpg.connect(*where, **details), asyncpg.Connection.terminate)


@contextmanager
def translated() -> Iterator[None]:
    """Raise `Unavailable` for a connection that was lost or could not be had; other errors pass."""
    try:
        yield
    except (OSError, PoolTimeout) as exc:
        raise Unavailable(_AWAY) from exc
    except DBAPIError as exc:
        state: str = getattr(exc.orig, "sqlstate", None) or ""
        if exc.connection_invalidated or state.startswith(_LOST) or "connection" in str(exc.orig):
            raise Unavailable(_AWAY) from exc
        raise


def any_of(ids: Iterable[UUID]) -> CollectionAggregate[bool]:
    """Express `column = ANY(ids)` by one parameter, so that the statement is the same for 1 and for 500 ids."""
    return any_(literal(list(ids), ARRAY(Uuid())))


def storable(value: Any) -> Any:
    """Replace the NUL characters in a JSON value, which PostgreSQL keeps neither in text nor in JSON."""
    match value:
        case str():
            return value.replace("\0", "\ufffd")
        case list():
            return [storable(item) for item in value]
        case dict():
            return {storable(key): storable(item) for key, item in value.items()}
        case _:
            return value
