"""The manager's first tables.

Revision ID: manager_0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "manager_0001"
down_revision = None
branch_labels = ("manager",)
depends_on = None


def upgrade() -> None:
    op.create_table(
        "artifact_registries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column(
            "type",
            sa.Enum("HUGGINGFACE", "RESERVOIR", name="artifactregistrytype", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_artifact_registries"),
        sa.UniqueConstraint("name", name="uq_artifact_registries_name"),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("details", postgresql.JSONB(), nullable=True),
        sa.Column("request_id", sa.String(length=128), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"], unique=False)
    op.create_table(
        "projects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "type",
            sa.Enum("GENERAL", "MODEL_STORE", name="projecttype", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("name", name="uq_projects_name"),
    )
    op.create_table(
        "storage_proxies",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("last_event_id", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_storage_proxies"),
    )
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.String(length=320), nullable=False),
        sa.Column(
            "role", sa.Enum("USER", "ADMIN", name="userrole", native_enum=False, length=32), nullable=False
        ),
        sa.Column(
            "status",
            sa.Enum("ACTIVE", "INACTIVE", name="userstatus", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_api_tokens_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_api_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_api_tokens_token_hash"),
    )
    op.create_index("ix_api_tokens_user_id", "api_tokens", ["user_id"], unique=False)
    op.create_table(
        "artifacts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("registry_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column(
            "type",
            sa.Enum("MODEL", "PACKAGE", "IMAGE", name="artifacttype", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("readonly", sa.Boolean(), nullable=False),
        sa.Column("extra", postgresql.JSONB(), nullable=True),
        sa.Column("scanned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "availability",
            sa.Enum("ALIVE", "DELETED", name="artifactavailability", native_enum=False, length=32),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["registry_id"], ["artifact_registries.id"], name="fk_artifacts_registry_id"),
        sa.PrimaryKeyConstraint("id", name="pk_artifacts"),
        sa.UniqueConstraint("registry_id", "name", name="uq_artifacts_registry_id_name"),
    )
    op.create_index("ix_artifacts_name", "artifacts", ["name"], unique=False)
    op.create_table(
        "host_permissions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("host", sa.String(length=129), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("permissions", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_host_permissions_project_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_host_permissions_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_host_permissions"),
        sa.UniqueConstraint(
            "host",
            "user_id",
            "project_id",
            name="uq_host_permissions_host_user_id_project_id",
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_table(
        "project_members",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_project_members_project_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_project_members_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "user_id", name="pk_project_members"),
    )
    op.create_index("ix_project_members_user_id", "project_members", ["user_id"], unique=False)
    op.create_table(
        "user_grants",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("permission", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_user_grants_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "permission", name="pk_user_grants"),
    )
    op.create_table(
        "vfolders",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("host", sa.String(length=129), nullable=False),
        sa.Column(
            "usage_mode",
            sa.Enum("GENERAL", "MODEL", "DATA", name="vfolderusagemode", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column(
            "ownership_type",
            sa.Enum("USER", "GROUP", name="vfolderownershiptype", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column("user_id", sa.Uuid(), nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("creator_id", sa.Uuid(), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "READY",
                "PERFORMING",
                "CLONING",
                "MOUNTED",
                "ERROR",
                "DELETE_PENDING",
                "DELETE_ONGOING",
                "DELETE_COMPLETE",
                "DELETE_ERROR",
                name="vfolderstatus",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("unmanaged_path", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("(user_id IS NULL) <> (project_id IS NULL)", name="ck_vfolders_one_owner"),
        sa.ForeignKeyConstraint(["creator_id"], ["users.id"], name="fk_vfolders_creator_id"),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_vfolders_project_id"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_vfolders_user_id"),
        sa.PrimaryKeyConstraint("id", name="pk_vfolders"),
    )
    op.create_index(
        "uq_vfolders_project_name",
        "vfolders",
        ["project_id", "name"],
        unique=True,
        postgresql_where="project_id IS NOT NULL AND status NOT LIKE 'DELETE%'",
    )
    op.create_index(
        "uq_vfolders_user_name",
        "vfolders",
        ["user_id", "name"],
        unique=True,
        postgresql_where="user_id IS NOT NULL AND status NOT LIKE 'DELETE%'",
    )
    op.create_table(
        "artifact_revisions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("artifact_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.String(length=255), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "SCANNED",
                "PULLING",
                "PULLED",
                "VERIFYING",
                "NEEDS_APPROVAL",
                "AVAILABLE",
                "FAILED",
                "REJECTED",
                name="artifactstatus",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "remote_status",
            sa.Enum(
                "SCANNED", "AVAILABLE", "FAILED", name="artifactremotestatus", native_enum=False, length=32
            ),
            nullable=True,
        ),
        sa.Column("readme", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("stored_commit", sa.String(length=64), nullable=True),
        sa.Column("verification", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["artifact_id"], ["artifacts.id"], name="fk_artifact_revisions_artifact_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_artifact_revisions"),
        sa.UniqueConstraint("artifact_id", "version", name="uq_artifact_revisions_artifact_id_version"),
    )
    op.create_table(
        "vfolder_permissions",
        sa.Column("vfolder_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column(
            "permission",
            sa.Enum(
                "READ_ONLY", "READ_WRITE", "RW_DELETE", name="vfolderpermission", native_enum=False, length=32
            ),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_vfolder_permissions_user_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["vfolder_id"], ["vfolders.id"], name="fk_vfolder_permissions_vfolder_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("vfolder_id", "user_id", name="pk_vfolder_permissions"),
    )
    op.create_index("ix_vfolder_permissions_user_id", "vfolder_permissions", ["user_id"], unique=False)
    op.create_table(
        "import_tasks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("request_id", sa.String(length=128), nullable=False),
        sa.Column("requested_by_id", sa.Uuid(), nullable=False),
        sa.Column("artifact_revision_id", sa.Uuid(), nullable=False),
        sa.Column("proxy", sa.String(length=64), nullable=False),
        sa.Column("vfolder_id", sa.Uuid(), nullable=True),
        sa.Column("storage_name", sa.String(length=64), nullable=True),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("force", sa.Boolean(), nullable=False),
        sa.Column(
            "on_conflict",
            sa.Enum("FAIL", "OVERWRITE", name="importconflictpolicy", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column("order", postgresql.JSONB(), nullable=False),
        sa.Column("ordered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "status_before",
            sa.Enum(
                "SCANNED",
                "PULLING",
                "PULLED",
                "VERIFYING",
                "NEEDS_APPROVAL",
                "AVAILABLE",
                "FAILED",
                "REJECTED",
                name="artifactstatus",
                native_enum=False,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column(
            "status",
            sa.Enum(
                "PENDING",
                "RUNNING",
                "NEEDS_APPROVAL",
                "SUCCEEDED",
                "FAILED",
                "CANCELLED",
                name="importtaskstatus",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "step",
            sa.Enum("DOWNLOAD", "VERIFY", "ARCHIVE", name="importstep", native_enum=False, length=32),
            nullable=True,
        ),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("commit", sa.String(length=64), nullable=True),
        sa.Column("expected_size", sa.BigInteger(), nullable=True),
        sa.Column("files_done", sa.BigInteger(), nullable=False),
        sa.Column("files_total", sa.BigInteger(), nullable=True),
        sa.Column("bytes_done", sa.BigInteger(), nullable=False),
        sa.Column("bytes_total", sa.BigInteger(), nullable=True),
        sa.Column("bytes_per_second", sa.Double(), nullable=True),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("verification", postgresql.JSONB(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["artifact_revision_id"], ["artifact_revisions.id"], name="fk_import_tasks_artifact_revision_id"
        ),
        sa.ForeignKeyConstraint(["requested_by_id"], ["users.id"], name="fk_import_tasks_requested_by_id"),
        sa.ForeignKeyConstraint(["vfolder_id"], ["vfolders.id"], name="fk_import_tasks_vfolder_id"),
        sa.PrimaryKeyConstraint("id", name="pk_import_tasks"),
    )
    op.create_index(
        "ix_import_tasks_artifact_revision_id", "import_tasks", ["artifact_revision_id"], unique=False
    )
    op.create_index(
        "ix_import_tasks_open_proxy",
        "import_tasks",
        ["proxy"],
        unique=False,
        postgresql_where="finished_at IS NULL",
    )
    op.create_index(
        "ix_import_tasks_requested_by_created_at",
        "import_tasks",
        ["requested_by_id", "created_at"],
        unique=False,
    )
    op.create_index("ix_import_tasks_vfolder_id", "import_tasks", ["vfolder_id"], unique=False)
    op.create_index(
        "uq_import_tasks_open",
        "import_tasks",
        ["artifact_revision_id", "destination"],
        unique=True,
        postgresql_where="finished_at IS NULL",
    )


def downgrade() -> None:
    op.drop_table("import_tasks")
    op.drop_table("vfolder_permissions")
    op.drop_table("artifact_revisions")
    op.drop_table("vfolders")
    op.drop_table("user_grants")
    op.drop_table("project_members")
    op.drop_table("host_permissions")
    op.drop_table("artifacts")
    op.drop_table("api_tokens")
    op.drop_table("users")
    op.drop_table("storage_proxies")
    op.drop_table("projects")
    op.drop_table("audit_log")
    op.drop_table("artifact_registries")
