"""The tables of both services, as two independent branches: `manager` and `proxy`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import RevisionError
from alembic.util import CommandError
from sqlalchemy import Connection, func, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from proxy_client.errors import BadRequest, Conflict, Unavailable

_HERE = Path(__file__).parent
# Any number that nothing else in the database locks: "stowage!" in ASCII.
_LOCK = 0x73746F7761676521
_CONNECT_SECONDS = 10.0
# Appendix A of the PostgreSQL manual: connections, authorization, no such database, resources, shutdown and start-up,
# a server that only reads, a right that the role lacks.
_REFUSED = ("08", "28", "3D", "53", "57P", "25006", "42501")
_NEWER = (
    "the database's tables are of a newer Stowage; install that one, or go back to the backup made before it"
)


async def migrate_manager(url: str) -> None:
    """Bring the manager's tables, in the schema `public`, to the newest version.

    May be repeated, also by several processes at once: one migrates, the others wait and find nothing to do.
    All or nothing. Raises `Conflict` for a database that a newer Stowage has migrated, `Unavailable` for one that
    gives no answer or lets nobody in, `BadRequest` for what is no URL.
    """
    await _migrate(url, "manager", None)


async def migrate_proxy(url: str, schema: str) -> None:
    """Bring a storage proxy's tables, in a schema that is made when it is missing, to the newest version.

    Promises and errors are those of `migrate_manager`.
    """
    await _migrate(url, "proxy", schema)


async def pending_manager(url: str) -> list[str]:
    """Return the migrations that the manager's tables lack, oldest first. Raises as `migrate_manager` does."""
    return await _pending(url, "manager", None)


async def pending_proxy(url: str, schema: str) -> list[str]:
    """Return the migrations that a storage proxy's tables lack, oldest first. Raises as `migrate_manager` does."""
    return await _pending(url, "proxy", schema)


def database_name(url: str) -> str:
    """Return what may be shown of a database's URL, `NAME at HOST:PORT`. Raises `BadRequest`."""
    return _named(_parsed(url))


async def _migrate(url: str, branch: str, schema: str | None) -> None:
    async with _connected(url) as connection:
        await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        if schema is not None and not await connection.scalar(_SCHEMA_IS_THERE, {"name": schema}):
            await connection.execute(text(f'CREATE SCHEMA "{schema}"'))
        await connection.run_sync(_upgrade, branch, schema)


# CREATE SCHEMA IF NOT EXISTS wants the right to make one even where nothing is to be made.
_SCHEMA_IS_THERE = text("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = :name)")


async def _pending(url: str, branch: str, schema: str | None) -> list[str]:
    async with _connected(url) as connection:
        return await connection.run_sync(_lacking, branch, schema)


def _upgrade(connection: Connection, branch: str, schema: str | None) -> None:
    config = _config(branch)
    config.attributes.update(connection=connection, branch=branch, schema=schema)
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise Conflict(f"{_NEWER} ({exc})") from exc


def _lacking(connection: Connection, branch: str, schema: str | None) -> list[str]:
    context = MigrationContext.configure(connection, opts={"version_table_schema": schema})
    script = ScriptDirectory.from_config(_config(branch))
    try:
        steps = list(script.iterate_revisions("heads", context.get_current_heads() or "base"))
    except (CommandError, RevisionError) as exc:
        raise Conflict(f"{_NEWER} ({exc})") from exc
    return [step.revision for step in reversed(steps)]


def _config(branch: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("version_locations", str(_HERE / "versions" / branch))
    config.set_main_option("path_separator", "newline")
    return config


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[AsyncConnection]:
    """Open one transaction on a connection of its own."""
    parsed = _parsed(url)
    where = f"the database {_named(parsed)}"
    engine = create_async_engine(parsed, poolclass=NullPool, connect_args={"timeout": _CONNECT_SECONDS})
    try:
        async with engine.begin() as connection:
            yield connection
    except OSError as exc:
        why = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror or "it took too long"
        raise Unavailable(f"{where} gives no answer ({why}); is it up, and the URL right?") from exc
    except DBAPIError as exc:
        state: str = getattr(exc.orig, "sqlstate", None) or ""
        if not state.startswith(_REFUSED):
            raise
        raise Unavailable(
            f"{where} refuses: {_told(exc)}; correct the URL, or the role's rights there"
        ) from exc
    finally:
        await engine.dispose()


def _parsed(url: str) -> URL:
    with suppress(ArgumentError):
        parsed = make_url(url)
        if parsed.get_backend_name() in {"postgresql", "postgres"}:
            return parsed.set(drivername="postgresql+asyncpg")
    raise BadRequest("this is no URL of a database; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE")


def _named(url: URL) -> str:
    return f"{url.database} at {url.host}:{url.port or 5432}"


def _told(error: DBAPIError) -> str:
    """Return what the server said, without the name of the class that SQLAlchemy puts before it."""
    return str(error.orig).rpartition(">: ")[2]
