"""The manager's connections to PostgreSQL."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import CollectionAggregate, Uuid, any_, literal
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool

from proxy_client.errors import Unavailable

# Appendix A of the PostgreSQL manual: connection exceptions, shutdown and start-up, too many connections.
_LOST = ("08", "57P0", "53300")


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
            "timeout": 5.0,
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

    async def close(self) -> None:
        """Close all connections that are not in use."""
        await self.engine.dispose()
        await self._alone.dispose()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncSession]:
        """Open one transaction, committed at the end and rolled back on an error.

        Rows stay usable after the commit. Raises `Unavailable` when PostgreSQL does not answer.
        """
        with translated():
            async with self._writers.begin() as session:
                yield session

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open one read-only transaction; a write in it is an error. Raises `Unavailable` as `begin` does."""
        with translated():
            async with self._readers() as session:
                yield session

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection outside the pool in autocommit mode, for what holds it long: locks and listeners."""
        with translated():
            async with self._alone.connect() as connection:
                yield connection


@contextmanager
def translated() -> Iterator[None]:
    """Raise `Unavailable` for a connection that was lost or could not be had; other errors pass."""
    try:
        yield
    except (OSError, PoolTimeout) as exc:
        raise Unavailable("the database does not answer; try again in a moment") from exc
    except DBAPIError as exc:
        state: str = getattr(exc.orig, "sqlstate", None) or ""
        if exc.connection_invalidated or state.startswith(_LOST) or "connection" in str(exc.orig):
            raise Unavailable("the database does not answer; try again in a moment") from exc
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
