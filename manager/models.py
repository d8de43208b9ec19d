"""The manager's tables. Times are UTC; sizes are bytes."""

import enum
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


def utc_now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Constraint names are fixed, so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 -- SQLAlchemy's own way to map types
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSON().with_variant(JSONB(), "postgresql"),
        int: BigInteger(),
        list[str]: ARRAY(Text()),
    }


def _choice(kind: type[enum.Enum]) -> Enum:
    return Enum(kind, native_enum=False, create_constraint=False, length=32)


class UserRole(enum.StrEnum):
    """Administrators may do everything; see manager/access.py for the rest."""

    USER = "USER"
    ADMIN = "ADMIN"


class UserStatus(enum.StrEnum):
    """An inactive user's tokens are refused."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


class ProjectType(enum.StrEnum):
    """A MODEL_STORE project's folders are readable by everyone, writable by its members."""

    GENERAL = "GENERAL"
    MODEL_STORE = "MODEL_STORE"


class ArtifactRegistryType(enum.StrEnum):
    """The protocol that a registry speaks."""

    HUGGINGFACE = "HUGGINGFACE"
    RESERVOIR = "RESERVOIR"


class ArtifactStorageType(enum.StrEnum):
    """Whether an artifact storage is a directory or lies in an object storage."""

    VFS = "VFS"
    OBJECT = "OBJECT"


class ArtifactType(enum.StrEnum):
    """What an artifact is; only models are imported today."""

    MODEL = "MODEL"
    PACKAGE = "PACKAGE"
    IMAGE = "IMAGE"


class ArtifactAvailability(enum.StrEnum):
    """Whether an artifact was (softly) deleted."""

    ALIVE = "ALIVE"
    DELETED = "DELETED"


class ArtifactStatus(enum.StrEnum):
    """Where a revision stands in the shared artifact storage; imports into vfolders leave it alone."""

    SCANNED = "SCANNED"
    PULLING = "PULLING"
    PULLED = "PULLED"
    VERIFYING = "VERIFYING"
    NEEDS_APPROVAL = "NEEDS_APPROVAL"
    AVAILABLE = "AVAILABLE"
    FAILED = "FAILED"
    REJECTED = "REJECTED"


class ArtifactRemoteStatus(enum.StrEnum):
    """What a RESERVOIR registry says of a revision."""

    SCANNED = "SCANNED"
    AVAILABLE = "AVAILABLE"
    FAILED = "FAILED"


class VFolderUsageMode(enum.StrEnum):
    """What a vfolder is for."""

    GENERAL = "GENERAL"
    MODEL = "MODEL"
    DATA = "DATA"


class VFolderOwnershipType(enum.StrEnum):
    """Whether a user or a project owns a vfolder."""

    USER = "USER"
    GROUP = "GROUP"


class VFolderPermission(enum.StrEnum):
    """What somebody may do with a vfolder's files, in rising order."""

    READ_ONLY = "READ_ONLY"
    READ_WRITE = "READ_WRITE"
    RW_DELETE = "RW_DELETE"


class VFolderInvitationState(enum.StrEnum):
    """Where an invitation to a vfolder stands; a PENDING one can be answered, an ACCEPTED one gives its permission."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    REVOKED = "REVOKED"
    LEFT = "LEFT"


class VFolderStatus(enum.StrEnum):
    """Where a vfolder stands; READY and MOUNTED accept imports."""

    READY = "READY"
    PERFORMING = "PERFORMING"
    CLONING = "CLONING"
    MOUNTED = "MOUNTED"
    ERROR = "ERROR"
    DELETE_PENDING = "DELETE_PENDING"
    DELETE_ONGOING = "DELETE_ONGOING"
    DELETE_COMPLETE = "DELETE_COMPLETE"
    DELETE_ERROR = "DELETE_ERROR"


class ImportTaskStatus(enum.StrEnum):
    """Where an import task stands; the last three are terminal and never change again."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    NEEDS_APPROVAL = "NEEDS_APPROVAL"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


OPEN_STATUSES = (ImportTaskStatus.PENDING, ImportTaskStatus.RUNNING, ImportTaskStatus.NEEDS_APPROVAL)


class ImportStep(enum.StrEnum):
    """The steps of an import, in their order."""

    DOWNLOAD = "DOWNLOAD"
    VERIFY = "VERIFY"
    ARCHIVE = "ARCHIVE"


class ApprovalDecision(enum.StrEnum):
    """What an administrator said about an import that needs approval."""

    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


class ImportConflictPolicy(enum.StrEnum):
    """What to do with a user's own file in the way."""

    FAIL = "FAIL"
    OVERWRITE = "OVERWRITE"


class User(Base):
    """A person or program that calls Stowage."""

    __tablename__ = "users"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    email: Mapped[str] = mapped_column(String(320), unique=True)
    role: Mapped[UserRole] = mapped_column(_choice(UserRole), default=UserRole.USER)
    status: Mapped[UserStatus] = mapped_column(_choice(UserStatus), default=UserStatus.ACTIVE)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class UserGrant(Base):
    """A permission beyond a user's role: `artifact:import` lets a user fill artifact storages."""

    __tablename__ = "user_grants"

    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    permission: Mapped[str] = mapped_column(String(64), primary_key=True)


class ApiToken(Base):
    """A bearer token; only the SHA-256 of its 256 random bits is kept."""

    __tablename__ = "api_tokens"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    user_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(255))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    user: Mapped[User] = relationship()


class Project(Base):
    """A group of users that owns vfolders together. One that was deleted stays as the owner of deleted vfolders."""

    __tablename__ = "projects"
    __table_args__ = (Index("uq_projects_name", "name", unique=True, postgresql_where="deleted_at IS NULL"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(String(255))
    type: Mapped[ProjectType] = mapped_column(_choice(ProjectType), default=ProjectType.GENERAL)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]


class ProjectMember(Base):
    """A user's membership in a project."""

    __tablename__ = "project_members"

    project_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class HostPermission(Base):
    """What may be done on a vfolder host; a row without user and project speaks of everybody.

    Permissions: `create-vfolder`, `upload-file`, `download-file`, `delete-vfolder`.
    """

    __tablename__ = "host_permissions"
    __table_args__ = (UniqueConstraint("host", "user_id", "project_id", postgresql_nulls_not_distinct=True),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    host: Mapped[str] = mapped_column(String(129))
    user_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    project_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))
    permissions: Mapped[list[str]] = mapped_column(ARRAY(Text()))


class StorageProxy(Base):
    """A storage proxy of the configuration, and how far its event stream was followed."""

    __tablename__ = "storage_proxies"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    last_event_id: Mapped[int] = mapped_column(default=0)
    last_seen_at: Mapped[datetime | None]


class ArtifactRegistry(Base):
    """Where artifacts come from. One that was deleted stays as the origin of what past imports name.

    `declared`: it stands in the manager's configuration file, and is changed there. `sealed` holds the secrets,
    encrypted; see `manager.vault`.
    """

    __tablename__ = "artifact_registries"
    __table_args__ = (
        Index("uq_artifact_registries_name", "name", unique=True, postgresql_where="deleted_at IS NULL"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(String(64))
    type: Mapped[ArtifactRegistryType] = mapped_column(_choice(ArtifactRegistryType))
    url: Mapped[str] = mapped_column(Text)
    api_version: Mapped[str | None] = mapped_column(String(32))
    declared: Mapped[bool] = mapped_column(default=False)
    sealed: Mapped[str | None] = mapped_column(Text, deferred=True)
    has_secrets: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    deleted_at: Mapped[datetime | None]


class ArtifactStorage(Base):
    """A place for artifacts that was entered in GraphQL: a directory on a storage proxy, or an object storage.

    An OBJECT one has endpoint, region and sealed secrets, and is used through its namespaces (buckets); a VFS one has
    a base path, and is used by its own name and through its namespaces (directories beneath it).
    """

    __tablename__ = "artifact_storages"
    __table_args__ = (UniqueConstraint("proxy", "name"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    type: Mapped[ArtifactStorageType] = mapped_column(_choice(ArtifactStorageType))
    proxy: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(64))
    base_path: Mapped[str | None] = mapped_column(Text)
    endpoint: Mapped[str | None] = mapped_column(Text)
    region: Mapped[str | None] = mapped_column(String(64))
    sealed: Mapped[str | None] = mapped_column(Text, deferred=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class StorageNamespace(Base):
    """A bucket of an object storage, or a directory of a VFS one, that artifacts may be put in."""

    __tablename__ = "storage_namespaces"
    __table_args__ = (UniqueConstraint("storage_id", "namespace"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    storage_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("artifact_storages.id", ondelete="CASCADE"))
    namespace: Mapped[str] = mapped_column(String(63))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    storage: Mapped[ArtifactStorage] = relationship()


class Artifact(Base):
    """A model `org/name` in a registry."""

    __tablename__ = "artifacts"
    __table_args__ = (UniqueConstraint("registry_id", "name"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    registry_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("artifact_registries.id"))
    name: Mapped[str] = mapped_column(String(255), index=True)
    type: Mapped[ArtifactType] = mapped_column(_choice(ArtifactType), default=ArtifactType.MODEL)
    description: Mapped[str | None] = mapped_column(Text)
    # An administrator wrote the description: scans leave it alone.
    described: Mapped[bool] = mapped_column(default=False)
    readonly: Mapped[bool] = mapped_column(default=True)
    extra: Mapped[dict[str, Any] | None]
    scanned_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)
    availability: Mapped[ArtifactAvailability] = mapped_column(
        _choice(ArtifactAvailability), default=ArtifactAvailability.ALIVE
    )

    # SQLAlchemy reserves the name `registry` on mapped classes.
    origin: Mapped[ArtifactRegistry] = relationship()


class ArtifactRevision(Base):
    """One version of an artifact. `digest` is the commit that a scan saw; `stored_commit` the one in the archive.

    `stored_in` says where that is: `{"proxy", "storage_name", "path"}`. `cleanup` is the same of a copy that is still
    to be removed. `details_due_at`: when size and readme are to be asked for; null where nothing is to be asked.
    """

    __tablename__ = "artifact_revisions"
    __table_args__ = (
        UniqueConstraint("artifact_id", "version"),
        Index(
            "ix_artifact_revisions_details_due_at",
            "details_due_at",
            postgresql_where="details_due_at IS NOT NULL",
        ),
        Index("ix_artifact_revisions_cleanup", "id", postgresql_where="cleanup IS NOT NULL"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    artifact_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("artifacts.id", ondelete="CASCADE"))
    version: Mapped[str] = mapped_column(String(255))
    status: Mapped[ArtifactStatus] = mapped_column(_choice(ArtifactStatus), default=ArtifactStatus.SCANNED)
    remote_status: Mapped[ArtifactRemoteStatus | None] = mapped_column(_choice(ArtifactRemoteStatus))
    readme: Mapped[str | None] = mapped_column(Text)
    size: Mapped[int | None]
    digest: Mapped[str | None] = mapped_column(String(64))
    stored_commit: Mapped[str | None] = mapped_column(String(64))
    stored_in: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    cleanup: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    details_due_at: Mapped[datetime | None]
    verification: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)

    artifact: Mapped[Artifact] = relationship()


class VFolder(Base):
    """A virtual folder on a shared volume. Exactly one of `user_id` and `project_id` is its owner."""

    __tablename__ = "vfolders"
    __table_args__ = (
        CheckConstraint("(user_id IS NULL) <> (project_id IS NULL)", name="one_owner"),
        Index(
            "uq_vfolders_user_name",
            "user_id",
            "name",
            unique=True,
            postgresql_where="user_id IS NOT NULL AND status NOT LIKE 'DELETE%'",
        ),
        Index(
            "uq_vfolders_project_name",
            "project_id",
            "name",
            unique=True,
            postgresql_where="project_id IS NOT NULL AND status NOT LIKE 'DELETE%'",
        ),
        Index(
            "ix_vfolders_deleting",
            "host",
            postgresql_where="status IN ('DELETE_PENDING', 'DELETE_ONGOING')",
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str] = mapped_column(String(255))
    host: Mapped[str] = mapped_column(String(129))
    usage_mode: Mapped[VFolderUsageMode] = mapped_column(
        _choice(VFolderUsageMode), default=VFolderUsageMode.GENERAL
    )
    ownership_type: Mapped[VFolderOwnershipType] = mapped_column(_choice(VFolderOwnershipType))
    user_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    project_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("projects.id"))
    creator_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    status: Mapped[VFolderStatus] = mapped_column(_choice(VFolderStatus), default=VFolderStatus.READY)
    unmanaged_path: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    project: Mapped[Project | None] = relationship()

    @property
    def quota_scope_id(self) -> str:
        """`user:<uuid>` or `project:<uuid>`."""
        return f"user:{self.user_id}" if self.user_id else f"project:{self.project_id}"

    @property
    def vfid(self) -> str:
        """The folder's id on its volume: `<quota scope>/<hex>`."""
        return f"{self.quota_scope_id}/{self.id.hex}"


class VFolderGrant(Base):
    """An accepted invitation, or a project member's own permission that overrides the project's."""

    __tablename__ = "vfolder_permissions"

    vfolder_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("vfolders.id", ondelete="CASCADE"), primary_key=True
    )
    user_id: Mapped[uuid.UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, index=True
    )
    permission: Mapped[VFolderPermission] = mapped_column(_choice(VFolderPermission))


class VFolderInvitation(Base):
    """An offer of a permission on a vfolder to whoever has the address; accepted, it becomes a `VFolderGrant`."""

    __tablename__ = "vfolder_invitations"
    __table_args__ = (
        Index(
            "uq_vfolder_invitations_pending",
            "vfolder_id",
            "email",
            unique=True,
            postgresql_where="state = 'PENDING'",
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    vfolder_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("vfolders.id", ondelete="CASCADE"), index=True)
    email: Mapped[str] = mapped_column(String(320), index=True)
    permission: Mapped[VFolderPermission] = mapped_column(_choice(VFolderPermission))
    inviter_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    state: Mapped[VFolderInvitationState] = mapped_column(
        _choice(VFolderInvitationState), default=VFolderInvitationState.PENDING
    )
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    answered_at: Mapped[datetime | None]

    vfolder: Mapped[VFolder] = relationship()


class Quota(Base):
    """What a user or project may keep on a volume, or an artifact storage may hold, and what its proxy last reported.

    Exactly one of `user_id`, `project_id` and `storage_name` is set, `volume` with the first two. `staged_bytes` is
    what of `used_bytes` was staged by imports that ran. The row is locked while an import is held against it.
    """

    __tablename__ = "quotas"
    __table_args__ = (
        CheckConstraint("num_nonnulls(user_id, project_id, storage_name) = 1", name="one_owner"),
        UniqueConstraint(
            "proxy", "volume", "user_id", "project_id", "storage_name", postgresql_nulls_not_distinct=True
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    proxy: Mapped[str] = mapped_column(String(64))
    volume: Mapped[str | None] = mapped_column(String(64))
    user_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))
    project_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("projects.id"))
    storage_name: Mapped[str | None] = mapped_column(String(64))
    limit_bytes: Mapped[int | None]
    used_bytes: Mapped[int | None]
    staged_bytes: Mapped[int] = mapped_column(default=0)
    # The limit that the proxy reported: another one than `limit_bytes` is still to be brought there.
    enforced_bytes: Mapped[int | None]
    reported_at: Mapped[datetime | None]
    asked_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ImportTask(Base):
    """One durable import of one revision to one destination.

    `order` is the body sent to the proxy; `ordered_at` is set once the proxy has accepted it. `sequence` is that
    of the last report taken over, so that an older one never overwrites a newer one.
    """

    __tablename__ = "import_tasks"
    __table_args__ = (
        Index(
            "uq_import_tasks_open",
            "artifact_revision_id",
            "destination",
            unique=True,
            postgresql_where="finished_at IS NULL",
        ),
        Index("ix_import_tasks_open_proxy", "proxy", postgresql_where="finished_at IS NULL"),
        Index("ix_import_tasks_requested_by_created_at", "requested_by_id", "created_at"),
        Index("ix_import_tasks_finished_at", "finished_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    request_id: Mapped[str] = mapped_column(String(128))
    requested_by_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    artifact_revision_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("artifact_revisions.id"), index=True)
    proxy: Mapped[str] = mapped_column(String(64))
    vfolder_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("vfolders.id"), index=True)
    storage_name: Mapped[str | None] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(Text)
    # "<proxy>:<storage>" or "<proxy>:<volume>/<vfolder hex>/<path>": what makes two open imports the same one.
    destination: Mapped[str] = mapped_column(Text)
    force: Mapped[bool] = mapped_column(default=False)
    on_conflict: Mapped[ImportConflictPolicy] = mapped_column(_choice(ImportConflictPolicy))
    order: Mapped[dict[str, Any]]
    ordered_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    # What was said about an import that needs approval; its proxy is told until it answers.
    decision: Mapped[ApprovalDecision | None] = mapped_column(_choice(ApprovalDecision))
    decision_reason: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[datetime | None]
    approval_until: Mapped[datetime | None]
    # The revision's status before this import, for an import to artifact storage.
    status_before: Mapped[ArtifactStatus | None] = mapped_column(_choice(ArtifactStatus))

    status: Mapped[ImportTaskStatus] = mapped_column(
        _choice(ImportTaskStatus), default=ImportTaskStatus.PENDING
    )
    step: Mapped[ImportStep | None] = mapped_column(_choice(ImportStep))
    sequence: Mapped[int] = mapped_column(default=0)
    commit: Mapped[str | None] = mapped_column(String(64))
    expected_size: Mapped[int | None]
    files_done: Mapped[int] = mapped_column(default=0)
    files_total: Mapped[int | None]
    bytes_done: Mapped[int] = mapped_column(default=0)
    bytes_total: Mapped[int | None]
    bytes_per_second: Mapped[float | None]
    error: Mapped[dict[str, Any] | None]
    verification: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    artifact_revision: Mapped[ArtifactRevision] = relationship()
    vfolder: Mapped[VFolder | None] = relationship()
    requested_by: Mapped[User] = relationship()


class VerificationWaiver(Base):
    """An administrator's word that certain findings in an artifact's files do not stand in the way, for a while.

    `rule` None is every rule of the verifier, `file` None every file.
    """

    __tablename__ = "verification_waivers"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    artifact_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("artifacts.id", ondelete="CASCADE"), index=True)
    verifier: Mapped[str] = mapped_column(String(64))
    rule: Mapped[str | None] = mapped_column(String(100))
    file: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    created_by_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]
    revoked_by_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("users.id"))


class AuditEntry(Base):
    """Who did what to what, and when; never changed."""

    __tablename__ = "audit_log"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    actor_id: Mapped[uuid.UUID | None]
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, Any] | None]
    request_id: Mapped[str | None] = mapped_column(String(128))
