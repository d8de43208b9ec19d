"""The enums that rows and schema share, made known to Strawberry; and the schema's own."""

import enum

import strawberry

from manager.models import (
    ArtifactAvailability,
    ArtifactRegistryType,
    ArtifactRemoteStatus,
    ArtifactStatus,
    ArtifactType,
    ImportConflictPolicy,
    ImportStep,
    ImportTaskStatus,
    ProjectType,
    UserRole,
    UserStatus,
    VFolderInvitationState,
    VFolderOwnershipType,
    VFolderPermission,
    VFolderStatus,
    VFolderUsageMode,
)

__all__ = [
    "ArtifactAvailability",
    "ArtifactOrderField",
    "ArtifactRegistryType",
    "ArtifactRemoteStatus",
    "ArtifactRevisionOrderField",
    "ArtifactStatus",
    "ArtifactType",
    "BgtaskEventType",
    "ImportConflictPolicy",
    "ImportStep",
    "ImportTaskStatus",
    "OrderDirection",
    "ProjectType",
    "UserPermission",
    "UserRole",
    "UserStatus",
    "VFolderHostPermission",
    "VFolderInvitationState",
    "VFolderOwnershipType",
    "VFolderPermission",
    "VFolderStatus",
    "VFolderUsageMode",
]


class OrderDirection(enum.StrEnum):
    """Which end of an order comes first."""

    ASC = "ASC"
    DESC = "DESC"


class BgtaskEventType(enum.StrEnum):
    """What happened to a background task; the last three end it."""

    UPDATED = "UPDATED"
    DONE = "DONE"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"


class ArtifactOrderField(enum.StrEnum):
    """What artifacts are ordered by; SIZE is that of all revisions together."""

    NAME = "NAME"
    TYPE = "TYPE"
    SIZE = "SIZE"
    SCANNED_AT = "SCANNED_AT"
    UPDATED_AT = "UPDATED_AT"


class ArtifactRevisionOrderField(enum.StrEnum):
    """What revisions are ordered by; a size that is not known counts as the greatest."""

    VERSION = "VERSION"
    SIZE = "SIZE"
    CREATED_AT = "CREATED_AT"
    UPDATED_AT = "UPDATED_AT"
    STATUS = "STATUS"


class UserPermission(enum.StrEnum):
    """What a user may do beyond the role; ARTIFACT_IMPORT lets a user fill the artifact storage."""

    ARTIFACT_IMPORT = "ARTIFACT_IMPORT"

    @property
    def row_value(self) -> str:
        """How a row writes it, `artifact:import`."""
        return self.value.lower().replace("_", ":")


class VFolderHostPermission(enum.StrEnum):
    """What may be done on a host: make folders, import into them, read their files, delete them."""

    CREATE_VFOLDER = "CREATE_VFOLDER"
    UPLOAD_FILE = "UPLOAD_FILE"
    DOWNLOAD_FILE = "DOWNLOAD_FILE"
    DELETE_VFOLDER = "DELETE_VFOLDER"

    @property
    def row_value(self) -> str:
        """How a row writes it, `upload-file`."""
        return self.value.lower().replace("_", "-")


for _kind in (
    ArtifactAvailability,
    ArtifactOrderField,
    ArtifactRegistryType,
    ArtifactRemoteStatus,
    ArtifactRevisionOrderField,
    ArtifactStatus,
    ArtifactType,
    BgtaskEventType,
    ImportConflictPolicy,
    ImportStep,
    ImportTaskStatus,
    OrderDirection,
    ProjectType,
    UserPermission,
    UserRole,
    UserStatus,
    VFolderHostPermission,
    VFolderInvitationState,
    VFolderOwnershipType,
    VFolderPermission,
    VFolderStatus,
    VFolderUsageMode,
):
    strawberry.enum(_kind, description=_kind.__doc__)
