"""What a request to import may ask for."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from manager.models import (
    Artifact,
    ArtifactAvailability,
    ArtifactRegistry,
    ArtifactRegistryType,
    ImportConflictPolicy,
)
from proxy_client.errors import BadRequest, Conflict, UnsupportedRegistry

MOST_REVISIONS = 500
IDS_FIELD = "input.artifactRevisionIds"

# A path is part of an index entry, which PostgreSQL limits to 2,704 bytes.
_LONGEST_PATH = 2000
_LONGEST_COMPONENT = 255
_RESERVED = {".", "..", ".stowage", ".staging"}
_REFUSED_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


@dataclass(frozen=True)
class ImportOptions:
    """What a request may choose. `force` fetches again what the destination holds already."""

    force: bool = False
    path: str | None = None
    on_conflict: ImportConflictPolicy = ImportConflictPolicy.FAIL


def check_request(revision_ids: Sequence[UUID], vfolder_id: UUID | None, options: ImportOptions) -> None:
    """Raise `BadRequest`, naming the field and the remedy, for what no database needs to be asked about."""
    if not revision_ids:
        raise BadRequest("the list is empty; name at least one artifact revision", field=IDS_FIELD)
    if len(revision_ids) > MOST_REVISIONS:
        raise BadRequest(
            f"these are {len(revision_ids)} revisions; name at most {MOST_REVISIONS} in one request",
            field=IDS_FIELD,
        )
    seen: set[UUID] = set()
    for index, revision_id in enumerate(revision_ids):
        if revision_id in seen:
            raise BadRequest("this revision is named twice; name it once", field=f"{IDS_FIELD}[{index}]")
        seen.add(revision_id)
    if vfolder_id is None:
        for name, given in (
            ("path", options.path is not None),
            ("onConflict", options.on_conflict is not ImportConflictPolicy.FAIL),
        ):
            if given:
                raise BadRequest(
                    f"{name} is for imports into a folder; leave it out or name input.vfolderId",
                    field=f"input.options.{name}",
                )
    elif options.path is not None:
        if len(revision_ids) > 1:
            raise BadRequest(
                "one path cannot take several revisions; name one revision, or leave the path out",
                field="input.options.path",
            )
        _check_path(options.path)


def check_source(artifact: Artifact, origin: ArtifactRegistry, where: str) -> None:
    """Raise `Conflict` for a deleted artifact, `UnsupportedRegistry` for one whose registry gives no files."""
    if artifact.availability is ArtifactAvailability.DELETED:
        raise Conflict("the artifact of this revision was deleted; restore it first", field=where)
    if origin.type is not ArtifactRegistryType.HUGGINGFACE:
        raise UnsupportedRegistry(
            f"this revision is of the registry {origin.name}, and imports from a {origin.type} registry "
            "are not offered; choose a revision of another registry",
            field=where,
        )


def _check_path(path: str) -> None:
    """Refuse what no volume would take; the proxy, which writes, has the last word."""
    if path == "/":
        return
    parts = path.split("/")
    fault = None
    if path.startswith("/"):
        fault = "must be relative to the folder"
    elif "" in parts:
        fault = "has an empty part"
    elif _RESERVED.intersection(parts):
        fault = "has a part that is reserved (., .., .stowage or .staging)"
    elif "\\" in path:
        fault = "has a backslash"
    elif any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in path):
        fault = "has a character that cannot be printed"
    elif any(part != part.strip() for part in parts):
        fault = "has a part that begins or ends with a space"
    elif len(path.encode()) > _LONGEST_PATH or any(len(part.encode()) > _LONGEST_COMPONENT for part in parts):
        fault = f"is longer than {_LONGEST_PATH} bytes, or has a part longer than {_LONGEST_COMPONENT}"
    if fault:
        raise BadRequest(
            f"the path {fault}; write one such as models/bert, or / for the folder's root",
            field="input.options.path",
        )
