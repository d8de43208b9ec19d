"""Find the vfolders whose deletion is not finished.

Revision ID: manager_0002
Revises: manager_0001
"""

from alembic import op

revision = "manager_0002"
down_revision = "manager_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_vfolders_deleting",
        "vfolders",
        ["host"],
        unique=False,
        postgresql_where="status IN ('DELETE_PENDING', 'DELETE_ONGOING')",
    )


def downgrade() -> None:
    op.drop_index("ix_vfolders_deleting", table_name="vfolders")
