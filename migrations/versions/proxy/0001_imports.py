"""The proxy's imports, and the tables of its job engine.

Revision ID: proxy_0001
Revises:
"""

from typing import TYPE_CHECKING

from alembic import op
from sqlalchemy import text

if TYPE_CHECKING:
    from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment

revision = "proxy_0001"
down_revision = None
branch_labels = ("proxy",)
depends_on = None


def _engine() -> "QueryBuilderEnvironment":
    # Read at every start, run once: the engine is loaded where it is installed.
    from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment  # noqa: PLC0415

    from storage_proxy.imports.jobs import engine_settings  # noqa: PLC0415

    schema = op.get_bind().scalar(text("SELECT current_schema()"))
    return QueryBuilderEnvironment(engine_settings(str(schema)))


def _run(script: str) -> None:
    # The engine's script holds many statements and a function body: only the driver's own execute takes it whole,
    # in the transaction that the statements before it began.
    op.get_bind().connection.run_async(lambda connection: connection.execute(script))


def upgrade() -> None:
    op.execute("CREATE SEQUENCE imports_sequence")
    op.execute(
        """CREATE TABLE imports (
            task_id uuid PRIMARY KEY,
            request_id text NOT NULL,
            "order" jsonb NOT NULL,
            job_id bigint,
            state text NOT NULL DEFAULT 'pending',
            step text,
            commit text,
            files_done bigint NOT NULL DEFAULT 0,
            files_total bigint,
            bytes_done bigint NOT NULL DEFAULT 0,
            bytes_total bigint,
            bytes_per_second double precision,
            verification jsonb,
            error jsonb,
            attempts integer NOT NULL DEFAULT 0,
            fence bigint NOT NULL DEFAULT 0,
            held_by uuid,
            cancel_requested boolean NOT NULL DEFAULT false,
            publishing boolean NOT NULL DEFAULT false,
            sequence bigint NOT NULL,
            created_at timestamptz NOT NULL DEFAULT now(),
            started_at timestamptz,
            finished_at timestamptz
        )"""
    )
    op.execute("CREATE UNIQUE INDEX imports_by_sequence ON imports (sequence)")
    op.execute("CREATE INDEX imports_open ON imports (job_id) WHERE finished_at IS NULL")
    op.execute(
        """CREATE TABLE workers (
            id uuid PRIMARY KEY,
            host text NOT NULL,
            pid integer NOT NULL,
            seen_at timestamptz NOT NULL DEFAULT now()
        )"""
    )
    _run(_engine().build_install_query(create_schema=False))


def downgrade() -> None:
    _run(_engine().build_uninstall_query())
    op.execute("DROP TABLE workers")
    op.execute("DROP TABLE imports")
    op.execute("DROP SEQUENCE imports_sequence")
