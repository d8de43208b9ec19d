"""Invitations, quotas, and projects that were deleted.

Revision ID: manager_0003
Revises: manager_0002
"""

import sqlalchemy as sa
from alembic import op

revision = "manager_0003"
down_revision = "manager_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("projects", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint("uq_projects_name", "projects", type_="unique")
    op.create_index(
        "uq_projects_name", "projects", ["name"], unique=True, postgresql_where="deleted_at IS NULL"
    )
    op.create_table(
        "vfolder_invitations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("vfolder_id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column(
            "permission",
            sa.Enum(
                "READ_ONLY", "READ_WRITE", "RW_DELETE", name="vfolderpermission", native_enum=False, length=32
            ),
            nullable=False,
        ),
        sa.Column("inviter_id", sa.Uuid(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "PENDING",
                "ACCEPTED",
                "REJECTED",
                "REVOKED",
                "LEFT",
                name="vfolderinvitationstate",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["vfolder_id"], ["vfolders.id"], name="fk_vfolder_invitations_vfolder_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["inviter_id"], ["users.id"], name="fk_vfolder_invitations_inviter_id"),
        sa.PrimaryKeyConstraint("id", name="pk_vfolder_invitations"),
    )
    op.create_index("ix_vfolder_invitations_vfolder_id", "vfolder_invitations", ["vfolder_id"], unique=False)
    op.create_index("ix_vfolder_invitations_email", "vfolder_invitations", ["email"], unique=False)
    op.create_index(
        "uq_vfolder_invitations_pending",
        "vfolder_invitations",
        ["vfolder_id", "email"],
        unique=True,
        postgresql_where="state = 'PENDING'",
    )
    op.create_table(
        "quotas",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("proxy", sa.String(length=64), nullable=False),
        sa.Column("volume", sa.String(length=64), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("storage_name", sa.String(length=64), nullable=True),
        sa.Column("limit_bytes", sa.BigInteger(), nullable=True),
        sa.Column("used_bytes", sa.BigInteger(), nullable=True),
        sa.Column("staged_bytes", sa.BigInteger(), nullable=False),
        sa.Column("enforced_bytes", sa.BigInteger(), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("num_nonnulls(user_id, project_id, storage_name) = 1", name="ck_quotas_one_owner"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_quotas_user_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_quotas_project_id"),
        sa.PrimaryKeyConstraint("id", name="pk_quotas"),
        sa.UniqueConstraint(
            "proxy",
            "volume",
            "user_id",
            "project_id",
            "storage_name",
            name="uq_quotas_proxy_volume_user_id_project_id_storage_name",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index("ix_import_tasks_finished_at", "import_tasks", ["finished_at"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_import_tasks_finished_at", table_name="import_tasks")
    op.drop_table("quotas")
    op.drop_table("vfolder_invitations")
    # The name of a project that is there again may be that of a deleted one.
    op.execute("UPDATE projects SET name = left(name, 200) || ' ' || id WHERE deleted_at IS NOT NULL")
    op.drop_index("uq_projects_name", table_name="projects")
    op.create_unique_constraint("uq_projects_name", "projects", ["name"])
    op.drop_column("projects", "deleted_at")
