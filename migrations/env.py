"""What Alembic runs: the manager's branch or the proxy's, each with a version table of its own."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

config = context.config
branch = config.attributes.get("branch", config.config_ini_section)
if branch not in {"manager", "proxy"}:
    raise SystemExit("choose the tables to migrate with --name manager or --name proxy")
schema: str | None = None
if branch == "proxy":
    given = context.get_x_argument(as_dictionary=True).get("schema", "stowage_proxy")
    schema = config.attributes.get("schema", given)


def migrate(connection: Connection, metadata: MetaData | None = None) -> None:
    """Run the migrations of the branch on an open connection; the caller commits.

    metadata: the tables that `alembic revision --autogenerate` and `alembic check` compare with.
    """
    if schema is not None:
        connection.execute(text(f'SET LOCAL search_path TO "{schema}"'))
        connection.dialect.default_schema_name = schema
    context.configure(connection=connection, target_metadata=metadata, version_table_schema=schema)
    with context.begin_transaction():
        context.run_migrations()


async def migrate_alone() -> None:
    """Open the connection that nobody gave: a person runs the command `alembic`."""
    url = os.environ.get("STOWAGE_DATABASE_URL")
    if not url:
        raise SystemExit("set STOWAGE_DATABASE_URL to the postgresql:// URL of the database")
    from manager.models import Base  # noqa: PLC0415 -- `stowage up` compares nothing, and starts without it

    metadata = Base.metadata if branch == "manager" else None
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            if schema is not None:
                await connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
            await connection.run_sync(migrate, metadata)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("the migrations need a database; --sql is not offered")
if (connection := config.attributes.get("connection")) is not None:
    migrate(connection)
else:
    asyncio.run(migrate_alone())
