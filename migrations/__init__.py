"""The tables of both services, as two independent branches: `manager` and `proxy`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, func, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from proxy_client.errors import Conflict

_HERE = Path(__file__).parent
# Any number that nothing else in the database locks: "stowage!" in ASCII.
_LOCK = 0x73746F7761676521


async def migrate_manager(url: str) -> None:
    """Bring the manager's tables, in the schema `public`, to the newest version.

    May be repeated, also by several processes at once: one migrates, the others wait and find nothing to do.
    All or nothing. Raises `Conflict` for a database that a newer Stowage has migrated.
    """
    await _migrate(url, "manager", None)


async def migrate_proxy(url: str, schema: str) -> None:
    """Bring a storage proxy's tables, in a schema that is made when it is missing, to the newest version.

    Promises and errors are those of `migrate_manager`.
    """
    await _migrate(url, "proxy", schema)


async def _migrate(url: str, branch: str, schema: str | None) -> None:
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            if schema is not None:
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            await connection.run_sync(_upgrade, branch, schema)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, branch: str, schema: str | None) -> None:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("version_locations", str(_HERE / "versions" / branch))
    config.set_main_option("path_separator", "newline")
    config.attributes.update(connection=connection, branch=branch, schema=schema)
    try:
        command.upgrade(config, "head")
    except CommandError as exc:
        raise Conflict(
            f"the database's tables cannot be migrated ({exc}); was it used by a newer Stowage? Install that one"
        ) from exc
