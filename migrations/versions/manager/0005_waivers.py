"""Findings that administrators waive, and until when an import waits for an approval.

Revision ID: manager_0005
Revises: manager_0004
"""

import sqlalchemy as sa
from alembic import op

revision = "manager_0005"
down_revision = "manager_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "verification_waivers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("artifact_id", sa.Uuid(), nullable=False),
        sa.Column("verifier", sa.String(length=64), nullable=False),
        sa.Column("rule", sa.String(length=100), nullable=True),
        sa.Column("file", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_by_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_by_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["artifact_id"],
            ["artifacts.id"],
            name="fk_verification_waivers_artifact_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["created_by_id"], ["users.id"], name="fk_verification_waivers_created_by_id"
        ),
        sa.ForeignKeyConstraint(
            ["revoked_by_id"], ["users.id"], name="fk_verification_waivers_revoked_by_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_verification_waivers"),
    )
    op.create_index("ix_verification_waivers_artifact_id", "verification_waivers", ["artifact_id"])
    op.add_column("import_tasks", sa.Column("approval_until", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("import_tasks", "approval_until")
    op.drop_table("verification_waivers")
