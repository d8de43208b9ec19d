"""What the artifact storages hold, who waits for whose bytes, and how many bytes were not fetched again.

Revision ID: proxy_0004
Revises: proxy_0003
"""

from alembic import op

revision = "proxy_0004"
down_revision = "proxy_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """CREATE TABLE holdings (
            storage text NOT NULL,
            path text NOT NULL,
            size bigint NOT NULL,
            sha256 text NOT NULL,
            blob_id text,
            PRIMARY KEY (storage, path)
        )"""
    )
    op.execute("CREATE INDEX holdings_sha256 ON holdings (sha256)")
    op.execute("CREATE INDEX holdings_blob_id ON holdings (blob_id) WHERE blob_id IS NOT NULL")
    op.execute("ALTER TABLE imports ADD COLUMN bytes_reused bigint NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE imports ADD COLUMN waits_for uuid[] NOT NULL DEFAULT '{}'")


def downgrade() -> None:
    op.execute("ALTER TABLE imports DROP COLUMN waits_for")
    op.execute("ALTER TABLE imports DROP COLUMN bytes_reused")
    op.execute("DROP TABLE holdings")
