"""Registries and storages that are entered in GraphQL, where revisions are stored, clean-ups and approvals.

Revision ID: manager_0004
Revises: manager_0003
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "manager_0004"
down_revision = "manager_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "artifact_storages",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "type",
            sa.Enum("VFS", "OBJECT", name="artifactstoragetype", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column("proxy", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("base_path", sa.Text(), nullable=True),
        sa.Column("endpoint", sa.Text(), nullable=True),
        sa.Column("region", sa.String(length=64), nullable=True),
        sa.Column("sealed", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_artifact_storages"),
        sa.UniqueConstraint("proxy", "name", name="uq_artifact_storages_proxy_name"),
    )
    op.create_table(
        "storage_namespaces",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("storage_id", sa.Uuid(), nullable=False),
        sa.Column("namespace", sa.String(length=63), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["storage_id"],
            ["artifact_storages.id"],
            name="fk_storage_namespaces_storage_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_storage_namespaces"),
        sa.UniqueConstraint("storage_id", "namespace", name="uq_storage_namespaces_storage_id_namespace"),
    )
    op.add_column("artifact_registries", sa.Column("api_version", sa.String(length=32), nullable=True))
    # Until now every registry came from the configuration file, and every description from a registry.
    for table, name, default in (
        ("artifact_registries", "declared", sa.true()),
        ("artifact_registries", "has_secrets", sa.false()),
        ("artifacts", "described", sa.false()),
    ):
        op.add_column(table, sa.Column(name, sa.Boolean(), nullable=False, server_default=default))
        op.alter_column(table, name, server_default=None)
    op.add_column("artifact_registries", sa.Column("sealed", sa.Text(), nullable=True))
    op.add_column("artifact_registries", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.drop_constraint("uq_artifact_registries_name", "artifact_registries", type_="unique")
    op.create_index(
        "uq_artifact_registries_name",
        "artifact_registries",
        ["name"],
        unique=True,
        postgresql_where="deleted_at IS NULL",
    )
    op.add_column("artifact_revisions", sa.Column("stored_in", postgresql.JSONB(), nullable=True))
    op.add_column("artifact_revisions", sa.Column("cleanup", postgresql.JSONB(), nullable=True))
    op.add_column(
        "artifact_revisions", sa.Column("details_due_at", sa.DateTime(timezone=True), nullable=True)
    )
    # Where a revision lies was known from its last import alone.
    op.execute(
        """
        UPDATE artifact_revisions SET stored_in = (
            SELECT jsonb_build_object('proxy', t.proxy, 'storage_name', t.storage_name, 'path', t.path)
            FROM import_tasks t
            WHERE t.artifact_revision_id = artifact_revisions.id AND t.storage_name IS NOT NULL
              AND t.status = 'SUCCEEDED'
            ORDER BY t.finished_at DESC LIMIT 1)
        WHERE stored_commit IS NOT NULL
        """
    )
    op.create_index(
        "ix_artifact_revisions_details_due_at",
        "artifact_revisions",
        ["details_due_at"],
        unique=False,
        postgresql_where="details_due_at IS NOT NULL",
    )
    op.create_index(
        "ix_artifact_revisions_cleanup",
        "artifact_revisions",
        ["id"],
        unique=False,
        postgresql_where="cleanup IS NOT NULL",
    )
    op.add_column(
        "import_tasks",
        sa.Column(
            "decision",
            sa.Enum("APPROVED", "REJECTED", name="approvaldecision", native_enum=False, length=32),
            nullable=True,
        ),
    )
    op.add_column("import_tasks", sa.Column("decision_reason", sa.Text(), nullable=True))
    op.add_column("import_tasks", sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("artifacts", "described")
    for name in ("decided_at", "decision_reason", "decision"):
        op.drop_column("import_tasks", name)
    op.drop_index("ix_artifact_revisions_cleanup", table_name="artifact_revisions")
    op.drop_index("ix_artifact_revisions_details_due_at", table_name="artifact_revisions")
    for name in ("details_due_at", "cleanup", "stored_in"):
        op.drop_column("artifact_revisions", name)
    op.drop_index("uq_artifact_registries_name", table_name="artifact_registries")
    # Names of deleted ones may have been given again.
    op.execute(
        "UPDATE artifact_registries SET name = left(name, 27) || '-' || id WHERE deleted_at IS NOT NULL"
    )
    op.create_unique_constraint("uq_artifact_registries_name", "artifact_registries", ["name"])
    for name in ("deleted_at", "sealed", "has_secrets", "declared", "api_version"):
        op.drop_column("artifact_registries", name)
    op.drop_table("storage_namespaces")
    op.drop_table("artifact_storages")
