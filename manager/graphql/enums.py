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
    "UserRole",
    "UserStatus",
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
    UserRole,
    UserStatus,
    VFolderOwnershipType,
    VFolderPermission,
    VFolderStatus,
    VFolderUsageMode,
):
    strawberry.enum(_kind, description=_kind.__doc__)
