"""What was said about an import that needs approval, and until when it waits.

Revision ID: proxy_0005
Revises: proxy_0004
"""

from alembic import op

revision = "proxy_0005"
down_revision = "proxy_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE imports ADD COLUMN approval_until timestamptz")
    op.execute("ALTER TABLE imports ADD COLUMN approved jsonb")
    op.execute("ALTER TABLE imports ADD COLUMN refusal text")


def downgrade() -> None:
    op.execute("ALTER TABLE imports DROP COLUMN refusal")
    op.execute("ALTER TABLE imports DROP COLUMN approved")
    op.execute("ALTER TABLE imports DROP COLUMN approval_until")
