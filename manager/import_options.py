"""What a request to import may ask for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from manager.models import (
    Artifact,
    ArtifactAvailability,
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactStorageType,
    ImportConflictPolicy,
)
from manager.settings import Settings
from proxy_client import wire
from proxy_client.errors import BadRequest, Conflict, UnsupportedRegistry
from proxy_client.paths import objection

MOST_REVISIONS = 500
IDS_FIELD = "input.artifactRevisionIds"

# A path is part of an index entry, which PostgreSQL limits to 2,704 bytes.
_LONGEST_PATH = 2000


@dataclass(frozen=True)
class ImportOptions:
    """What a request may choose. `force` fetches again what the destination holds already.

    `storage` is `PROXY:NAME` of an artifact storage; without it the settings name one for each step.
    """

    force: bool = False
    path: str | None = None
    on_conflict: ImportConflictPolicy = ImportConflictPolicy.FAIL
    storage: str | None = None


class StepStorages(NamedTuple):
    """The artifact storages of the steps of an import, all on one proxy."""

    proxy: str
    download: str
    verify: str
    archive: str


def step_storages(
    settings: Settings, storage: str | None, entered: Mapping[str, ArtifactStorageType]
) -> StepStorages:
    """Return the storages of an import without a vfolder: those of the settings, or `storage` to archive in.

    `entered` are the storages that were entered for its proxy. Verifiers need a file system: where the archive has
    none, files are brought to another storage of the proxy first. Raises `Conflict` where there is none.
    """
    if storage is not None:
        return _chosen(settings, storage, entered)
    if (reservoir := settings.reservoir) is None:
        raise Conflict(
            "no artifact storage is configured; import into a folder, name one in input.options.storage, or ask the "
            "operator for the section [reservoir] of the manager's configuration",
            field="input.vfolderId",
        )
    return StepStorages(reservoir.proxy, reservoir.download, reservoir.verify, reservoir.archive)


def _chosen(settings: Settings, storage: str, entered: Mapping[str, ArtifactStorageType]) -> StepStorages:
    proxy, _, name = storage.partition(":")
    if entered.get(name) is ArtifactStorageType.VFS:
        return StepStorages(proxy, name, name, name)
    if (reservoir := settings.reservoir) is not None and reservoir.proxy == proxy:
        return StepStorages(proxy, reservoir.download, reservoir.verify, name)
    if name not in entered:
        return StepStorages(proxy, name, name, name)  # one of the proxy's own configuration, or none at all
    local = min((each for each, kind in entered.items() if kind is ArtifactStorageType.VFS), default=None)
    if local is None:
        raise Conflict(
            f"verifiers need a file system, and the storage proxy {proxy} has object storages alone; enter a VFS "
            "storage for it (createVFSStorage)",
            field="input.options.storage",
        )
    return StepStorages(proxy, local, local, name)


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
        _check_storage(options.storage)
        return
    if options.storage is not None:
        raise BadRequest(
            "storage is for imports into an artifact storage; leave it or input.vfolderId out",
            field="input.options.storage",
        )
    if options.path is not None:
        _check_path(options.path, revision_ids)


def _check_storage(storage: str | None) -> None:
    if storage is None:
        return
    proxy, _, name = storage.partition(":")
    if not all(re.fullmatch(wire.NAME_PATTERN, part) for part in (proxy, name)):
        raise BadRequest(
            "this is no artifact storage; write PROXY:STORAGE, or PROXY:STORAGE.NAMESPACE",
            field="input.options.storage",
        )


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


def _check_path(path: str, revision_ids: Sequence[UUID]) -> None:
    if len(revision_ids) > 1:
        raise BadRequest(
            "one path cannot take several revisions; name one revision, or leave the path out",
            field="input.options.path",
        )
    check_path(path)


def check_path(path: str) -> None:
    """Refuse what no volume would take; the proxy, which writes, has the last word."""
    if path != "/" and (fault := objection(path, longest=_LONGEST_PATH)):
        raise BadRequest(
            f"the path is refused: {fault}; write one such as models/bert, or / for the folder's root",
            field="input.options.path",
        )
