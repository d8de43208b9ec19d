"""The registries and storages that the manager handed over, encrypted.

Revision ID: proxy_0006
Revises: proxy_0005
"""

from alembic import op

revision = "proxy_0006"
down_revision = "proxy_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """CREATE TABLE entered (
            the_only boolean PRIMARY KEY DEFAULT true CHECK (the_only),
            digest text NOT NULL,
            sealed text NOT NULL
        )"""
    )


def downgrade() -> None:
    op.execute("DROP TABLE entered")
