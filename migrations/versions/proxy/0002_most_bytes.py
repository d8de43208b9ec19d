"""How far an import ever came: only more than that is progress, whatever an attempt counts anew.

Revision ID: proxy_0002
Revises: proxy_0001
"""

from alembic import op

revision = "proxy_0002"
down_revision = "proxy_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE imports ADD COLUMN most_bytes bigint NOT NULL DEFAULT 0")
    op.execute("UPDATE imports SET most_bytes = bytes_done")


def downgrade() -> None:
    op.execute("ALTER TABLE imports DROP COLUMN most_bytes")
