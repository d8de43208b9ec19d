"""Every type that crosses the wire between the manager and a storage proxy. No I/O here."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    StringConstraints,
)
from pydantic_core import CoreSchema, core_schema

from proxy_client.paths import MODEL_ID_PATTERN

TASK_ID_HEADER = "X-Stowage-Task-Id"
REQUEST_ID_HEADER = "X-Request-Id"

REQUEST_ID_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"
COMMIT_PATTERN = r"^[0-9a-f]{40}([0-9a-f]{24})?$"
URL_PATTERN = r"^https?://[^/?#@\s]+(/[^?#\s]*)?$"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

RequestId = Annotated[str, StringConstraints(pattern=REQUEST_ID_PATTERN)]
ModelId = Annotated[str, StringConstraints(pattern=MODEL_ID_PATTERN)]
Commit = Annotated[str, StringConstraints(pattern=COMMIT_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Revision = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Url = Annotated[str, StringConstraints(pattern=URL_PATTERN, max_length=2000)]


@dataclass(frozen=True, slots=True)
class QuotaScopeID:
    """The user or project whose quota a vfolder counts against, written `user:<uuid>` or `project:<uuid>`."""

    kind: str
    id: UUID

    _PATTERN = re.compile(r"(user|project):([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `user:<uuid>` or `project:<uuid>`; raises ValueError for anything else."""
        if (found := cls._PATTERN.fullmatch(text)) is None:
            raise ValueError(f"a quota scope is user:<uuid> or project:<uuid>, not {text[:80]!r}")
        return cls(found[1], UUID(found[2]))

    def __str__(self) -> str:
        return f"{self.kind}:{self.id}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _written_as_string(cls, cls.parse)


@dataclass(frozen=True, slots=True)
class VFolderID:
    """A vfolder's place on its volume: quota scope and folder uuid, written `user:<uuid>/<hex>`."""

    quota_scope: QuotaScopeID
    folder: UUID

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `user:<uuid>/<32 hex digits>` or `project:…`; raises ValueError for anything else."""
        scope, slash, folder = text.partition("/")
        if not slash or re.fullmatch(r"[0-9a-f]{32}", folder) is None:
            raise ValueError(f"a vfolder id is <quota scope>/<32 hex digits>, not {text[:80]!r}")
        return cls(QuotaScopeID.parse(scope), UUID(folder))

    def __str__(self) -> str:
        return f"{self.quota_scope}/{self.folder.hex}"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return _written_as_string(cls, cls.parse)


def _written_as_string(cls: type, parse: Any) -> CoreSchema:
    from_string = core_schema.no_info_after_validator_function(parse, core_schema.str_schema())
    return core_schema.json_or_python_schema(
        json_schema=from_string,
        python_schema=core_schema.union_schema([core_schema.is_instance_schema(cls), from_string]),
        serialization=core_schema.plain_serializer_function_ser_schema(str),
    )


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


# The imports.


class ArtifactStorageImportStep(StrEnum):
    """The steps of an import, in their order."""

    DOWNLOAD = "download"
    VERIFY = "verify"
    ARCHIVE = "archive"


class ImportState(StrEnum):
    """Where an import stands; the last three are terminal and never change again."""

    PENDING = "pending"
    RUNNING = "running"
    NEEDS_APPROVAL = "needs_approval"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return self in {ImportState.SUCCEEDED, ImportState.FAILED, ImportState.CANCELLED}


class OnConflict(StrEnum):
    """What to do with a file of somebody else that lies where one of the artifact's should go."""

    FAIL = "fail"
    OVERWRITE = "overwrite"


class ModelRef(_Request):
    """A revision of a model; `commit` null lets the proxy resolve the revision once."""

    model_id: ModelId
    revision: Revision
    commit: Commit | None = None


class StorageTargetName(_Request):
    """An artifact storage of the proxy, by name."""

    storage_name: Name


class StorageTargetVFolder(_Request):
    """A vfolder on one of the proxy's volumes."""

    volume_name: Name
    vfolder_id: VFolderID


Target = StorageTargetName | StorageTargetVFolder


class StorageStepMappings(_Request):
    """The target of each step."""

    download: Target
    verify: Target
    archive: Target


class ImportOrder(_Request):
    """The body of `POST /imports`."""

    task_id: UUID
    request_id: RequestId
    requested_by: UUID
    registry_name: Name
    model: ModelRef
    storage_step_mappings: StorageStepMappings
    path: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    expected_size: Annotated[int, Field(ge=0)] | None = None
    force: bool = False
    on_conflict: OnConflict = OnConflict.FAIL


class ImportAccepted(_Answer):
    """The answer to `POST /imports`: the import is durable."""

    task_id: UUID


class ImportRejection(_Request):
    """The body of `POST /imports/{task_id}/reject`: why, for people."""

    reason: Annotated[str, StringConstraints(max_length=1000)] | None = None


class ImportFault(_Answer):
    """Why an import failed: a code of `proxy_client.errors`, a sentence for people, the step it happened in."""

    code: str
    message: str
    step: ArtifactStorageImportStep | None = None


class Finding(_Answer):
    """One thing that a verifier found in one file (`member` is the name inside an archive).

    `waiver` is that by which an administrator let it pass.
    """

    file: str
    member: str | None = None
    rule: str
    category: str
    severity: str
    message: str
    waiver: UUID | None = None


class Waiver(_Answer):
    """An administrator's word that findings of one verifier do not stand in the way; `rule` or `file` null is any."""

    id: UUID
    verifier: str
    rule: str | None = None
    file: str | None = None


class VerifierReport(_Answer):
    """What one verifier did. `scanned` + `skipped` counts files; `duration` is in seconds."""

    name: str
    status: Literal["clean", "flagged", "blocked", "incomplete", "error"]
    version: str
    scanned: int
    infected: int = 0
    skipped: int = 0
    error: str | None = None
    started_at: datetime
    duration: float
    findings: list[Finding] = []


class VerificationReport(_Answer):
    """The worst verdict of all verifiers (clean < flagged < incomplete < blocked) and each one's report."""

    verdict: Literal["clean", "flagged", "incomplete", "blocked"]
    verifiers: list[VerifierReport]


class ImportReport(_Answer):
    """The whole state of one import. `sequence` grows with every change of any import of the proxy; sizes in bytes.

    `bytes_reused` are those of `bytes_done` that the proxy had already and copied. `approval_until` is when an import
    that needs approval is given up.
    """

    task_id: UUID
    request_id: str
    state: ImportState
    step: ArtifactStorageImportStep | None = None
    files_done: int = 0
    files_total: int | None = None
    bytes_done: int = 0
    bytes_total: int | None = None
    bytes_reused: int = 0
    bytes_per_second: float | None = None
    commit: str | None = None
    verification: VerificationReport | None = None
    error: ImportFault | None = None
    approval_until: datetime | None = None
    attempts: int = 0
    sequence: int
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class Authorization(_Answer):
    """The manager's answer to a proxy's question whether the requester may still write there.

    `cancelled`: the manager has ended the import, and its word to the proxy may still be on the way. `waivers` are
    those in force for the artifact. `limit_bytes`: what the artifact storage that the import goes to may hold by now; null
    is no limit. A vfolder's limit is its quota scope's.
    """

    allowed: bool
    cancelled: bool = False
    reason: str | None = None
    waivers: list[Waiver] = []
    limit_bytes: int | None = None


# The volumes.


class VolumeInfo(_Answer):
    """A volume of the proxy; sizes in bytes."""

    name: str
    backend: str
    capabilities: list[str]
    total_bytes: int | None = None
    used_bytes: int | None = None


class QuotaScope(_Answer):
    """Use and limit of a quota scope, in bytes; `limit_bytes` null is unlimited."""

    quota_scope: QuotaScopeID
    used_bytes: int
    limit_bytes: int | None = None


class QuotaScopeUpdate(_Request):
    """The body of `PUT …/quota-scopes/{scope}`; null lifts the limit."""

    limit_bytes: Annotated[int, Field(ge=0)] | None


class VFolderCreate(_Request):
    """The body of `POST …/vfolders`: the folder's uuid, chosen by the manager, so that a repeat is safe."""

    folder: UUID


class VFolderUsage(_Answer):
    """What a vfolder holds; `limit_bytes` is its quota scope's."""

    used_bytes: int
    file_count: int | None = None
    limit_bytes: int | None = None


class VFolderFile(_Answer):
    """One entry of a vfolder; `path` is relative to the vfolder's root."""

    path: str
    size: int
    is_directory: bool
    modified_at: datetime


class ImportPreviewOrder(_Request):
    """The body of `POST …/vfolders/{folder}/preview`: what would be imported, and where to in the vfolder."""

    registry_name: Name
    model: ModelRef
    path: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


class PathConflict(_Answer):
    """What lies in the way of an import; `path` is relative to the vfolder's root."""

    path: str
    reason: str


class ImportPreview(_Answer):
    """What an import would meet; sizes in bytes, `missing_bytes` those that do not lie there yet.

    `conflicts` come in the order of the model's files. `truncated`: there may be more of them, and less may be missing.
    """

    total_bytes: int
    missing_bytes: int
    conflicts: list[PathConflict] = []
    truncated: bool = False


class VFolderModel(_Answer):
    """What a manifest in a vfolder tells; `path` is the folder that the import filled, "/" for the vfolder's root."""

    artifact: ModelId
    version: Revision
    path: str
    registry: Name
    commit: Commit
    size: int
    file_count: int
    imported_at: AwareDatetime
    task_id: UUID
    requested_by: UUID


class ArtifactStorageInfo(_Answer):
    """A pre-configured artifact storage; `type` is vfs or s3."""

    name: str
    type: str
    used_bytes: int | None = None


class StoredArtifact(_Request):
    """The body of `POST /artifact-storages/{name}/unpublish`: what an import published there, and where."""

    model_id: ModelId
    revision: Revision
    path: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


class PresignOrder(_Request):
    """The body of `POST /artifact-storages/{name}/presign`; `key` is relative to `path`, which the URL never leaves."""

    method: Literal["GET", "PUT"]
    path: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    key: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    expires_seconds: Annotated[int, Field(ge=1, le=604_800)]


class PresignedURL(_Answer):
    """A URL that needs no token until it expires; `fields` are headers that the request has to carry."""

    url: str
    fields: dict[str, str] = {}


# The registries.


class RegistryRevision(_Answer):
    """One branch or tag of a model at a registry; `size` is the sum of its files, in bytes.

    `described` is false where size and readme were not asked for.
    """

    name: str
    commit: str
    size: int | None = None
    readme: str | None = None
    described: bool = True


class RegistryModel(_Answer):
    """A model as its registry describes it; `revisions` is empty in search results."""

    model_id: str
    description: str | None = None
    downloads: int | None = None
    likes: int | None = None
    last_modified: datetime | None = None
    tags: list[str] = []
    revisions: list[RegistryRevision] = []


# What the manager hands over.


class RegistryConfiguration(_Request):
    """A registry that was entered at the manager."""

    name: Name
    type: Literal["huggingface"] = "huggingface"
    url: Url
    token: str | None = Field(default=None, repr=False)


class VFSStorageConfiguration(_Request):
    """A directory of the proxy's host, beneath one of its `storage-roots`."""

    type: Literal["vfs"] = "vfs"
    name: Name
    base_path: Annotated[str, StringConstraints(min_length=1, max_length=4000)]


class ObjectStorageConfiguration(_Request):
    """A bucket of an object storage that speaks S3; without one it can be checked, not used."""

    type: Literal["s3"] = "s3"
    name: Name
    endpoint: Url
    region: str
    bucket: str | None = None
    access_key: str = Field(repr=False)
    secret_key: str = Field(repr=False)


ArtifactStorageConfiguration = Annotated[
    VFSStorageConfiguration | ObjectStorageConfiguration, Field(discriminator="type")
]


class ProxyConfiguration(_Request):
    """The body of `PUT /configuration`: everything that was entered at the manager for one proxy, with its secrets."""

    registries: list[RegistryConfiguration] = []
    artifact_storages: list[ArtifactStorageConfiguration] = []

    @property
    def digest(self) -> str:
        """What tells two configurations apart, in hex."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


class ConfigurationState(_Answer):
    """The digest of the `ProxyConfiguration` that a proxy works with; null before the first one."""

    digest: str | None = None


class ConfigurationCheck(_Request):
    """The body of `POST /configuration/check`: what is to be tried before anybody keeps it."""

    registry: RegistryConfiguration | None = None
    artifact_storage: ArtifactStorageConfiguration | None = None


class ErrorBody(_Answer):
    """The body of every answer of 400 and above."""

    code: str
    message: str
    request_id: str | None = None
    field: str | None = None
