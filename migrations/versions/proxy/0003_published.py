"""Whether all of an import's files are visible, so that no later attempt can call it failed.

Revision ID: proxy_0003
Revises: proxy_0002
"""

from alembic import op

revision = "proxy_0003"
down_revision = "proxy_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE imports ADD COLUMN published boolean NOT NULL DEFAULT false")


def downgrade() -> None:
    op.execute("ALTER TABLE imports DROP COLUMN published")
