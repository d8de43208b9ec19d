"""The GraphQL documents on models, folders and users that the command line sends, and the shape of what comes back."""

from typing import Any, Literal, TypedDict


class SourceInfo(TypedDict):
    """The registry that an artifact comes from."""

    name: str | None
    url: str | None


class Artifact(TypedDict):
    """A model `org/name` in a registry."""

    id: str
    name: str
    registry: SourceInfo


class ArtifactRevision(TypedDict):
    """One version of an artifact; `digest` is the commit that the last scan saw, `size` is in bytes."""

    id: str
    version: str
    status: str
    size: int | None
    digest: str | None
    artifact: Artifact


class ArtifactSummary(Artifact):
    """An artifact with how many revisions it has, how many are in the artifact storage, and how many match a filter."""

    scannedAt: str
    revisions: dict[str, int]
    available: dict[str, int]
    matching: dict[str, int]


class WholeRevision(TypedDict):
    """One version with what the last import into the artifact storage brought."""

    id: str
    version: str
    status: str
    size: int | None
    digest: str | None
    createdAt: str | None
    updatedAt: str | None
    verificationResult: dict[str, Any] | None


class WholeArtifact(Artifact):
    """An artifact with its revisions."""

    type: str
    description: str | None
    scannedAt: str
    updatedAt: str
    revisions: list[WholeRevision]


class User(TypedDict):
    """A person or program that calls Stowage."""

    id: str
    email: str
    role: str
    status: str
    createdAt: str


class Token(TypedDict):
    """A token without its value; times are ISO 8601."""

    id: str
    name: str
    createdAt: str
    expiresAt: str | None
    revokedAt: str | None
    user: dict[str, str]


class Volume(TypedDict):
    """A volume that folders can be made on; `host` is `proxy:volume`, sizes are bytes."""

    host: str
    backend: str
    capabilities: list[str]
    totalBytes: int | None
    usedBytes: int | None


class VFolderUsage(TypedDict):
    """What a folder holds; `usedBytes` is in bytes."""

    usedBytes: int
    fileCount: int | None


class VFolder(TypedDict):
    """A folder as the caller sees it; `host` is `proxy:volume`."""

    id: str
    name: str
    host: str
    usageMode: str
    ownershipType: str
    permission: str
    status: str
    createdAt: str


class VFolderFile(TypedDict):
    """One entry of a folder; `path` is relative to its root, `size` is in bytes."""

    path: str
    size: int
    isDirectory: bool
    modifiedAt: str


class VFolderPlace(TypedDict):
    """The folder that an import fills."""

    id: str
    name: str
    host: str


class Destination(TypedDict, total=False):
    """Where an import goes: a folder or an artifact storage."""

    vfolder: VFolderPlace
    storageName: str


class ImportFault(TypedDict):
    """Why an import failed."""

    code: str
    message: str
    step: str | None


class ImportTask(TypedDict):
    """One import; sizes are bytes, times ISO 8601."""

    id: str
    status: Literal["PENDING", "RUNNING", "NEEDS_APPROVAL", "SUCCEEDED", "FAILED", "CANCELLED"]
    step: str | None
    artifactRevision: ArtifactRevision
    destination: Destination
    path: str
    commit: str | None
    filesDone: int
    filesTotal: int | None
    bytesDone: int
    bytesTotal: int | None
    bytesPerSecond: float | None
    error: ImportFault | None
    verificationResult: dict[str, Any] | None
    requestId: str
    requestedBy: dict[str, str]
    createdAt: str
    startedAt: str | None
    finishedAt: str | None


_REVISION = """
fragment Revision on ArtifactRevision { id version status size digest }
"""

_SCANNED_REVISION = (
    _REVISION
    + """
fragment ScannedRevision on ArtifactRevision { ...Revision artifact { id name registry { name url } } }
"""
)

_TASK = (
    _SCANNED_REVISION
    + """
fragment Task on ImportTask {
  id status step path commit filesDone filesTotal bytesDone bytesTotal bytesPerSecond
  artifactRevision { ...ScannedRevision }
  destination {
    ... on VFolderDestination { vfolder { id name host } }
    ... on ArtifactStorageDestination { storageName }
  }
  error { code message step }
  requestId requestedBy { id email }
  createdAt startedAt finishedAt
}
"""
)

_VERIFICATION = """
fragment Verification on ArtifactVerificationResult {
  verifiers {
    name
    result {
      success infectedCount scannedCount scannedAt scanTime error
      metadata { entries { key value } }
    }
  }
}
"""

_WHOLE_TASK = (
    _TASK
    + _VERIFICATION
    + """
fragment WholeTask on ImportTask { ...Task verificationResult { ...Verification } }
"""
)

_VFOLDER = """
fragment Folder on VFolder { id name host usageMode ownershipType permission status createdAt }
"""

_USER = """
fragment Person on User { id email role status createdAt }
"""

FIND_REVISION = (
    _REVISION
    + """
query FindRevision($name: String!, $version: String!) {
  artifacts(filter: {name: {equals: $name}, availability: [ALIVE]}, first: 10) {
    edges { node {
      id name registry { name url }
      revisions(filter: {version: {equals: $version}}, first: 1) { edges { node { ...Revision } } }
    } }
  }
}
"""
)

ARTIFACTS = """
query Artifacts($filter: ArtifactFilter!, $status: [ArtifactStatus!], $first: Int!, $after: String) {
  artifacts(filter: $filter, first: $first, after: $after) {
    pageInfo { hasNextPage endCursor }
    edges { node {
      id name registry { name url } scannedAt
      revisions(first: 0) { count }
      available: revisions(filter: {status: {equals: AVAILABLE}}, first: 0) { count }
      matching: revisions(filter: {status: {in: $status}}, first: 0) { count }
    } }
  }
}
"""

FIND_ARTIFACT = """
query FindArtifact($name: String!, $registry: StringFilter) {
  artifacts(filter: {name: {equals: $name}, registry: $registry, availability: [ALIVE]}, first: 100) {
    edges { node { id name type description registry { name url } scannedAt updatedAt } }
  }
}
"""

REVISIONS = (
    _VERIFICATION
    + """
query Revisions($artifactId: UUID!, $version: StringFilter, $first: Int!, $after: String) {
  artifactRevisions(
    filter: {artifactId: {equals: $artifactId}, version: $version}
    orderBy: [{field: VERSION}] first: $first after: $after
  ) {
    pageInfo { hasNextPage endCursor }
    edges { node {
      id version status size digest createdAt updatedAt verificationResult { ...Verification }
    } }
  }
}
"""
)

SCAN_MODEL = (
    _SCANNED_REVISION
    + """
mutation ScanModel($model: String!, $version: String) {
  scanArtifactModels(input: {models: [{modelId: $model, revision: $version}]}) {
    artifactRevision { edges { node { ...ScannedRevision } } }
  }
}
"""
)

IMPORT_REVISION = (
    _WHOLE_TASK
    + """
mutation ImportRevision($revisionId: ID!, $vfolderId: ID, $options: ImportArtifactsOptions!) {
  importArtifacts(input: {artifactRevisionIds: [$revisionId], vfolderId: $vfolderId, options: $options}) {
    tasks { taskId task { ...WholeTask } }
  }
}
"""
)

IMPORT_TASK = _WHOLE_TASK + "query ImportTask($id: ID!) { importTask(id: $id) { ...WholeTask } }"

IMPORT_TASKS = (
    _TASK
    + """
query ImportTasks($status: [ImportTaskStatus!], $vfolderId: ID, $first: Int!) {
  importTasks(status: $status, vfolderId: $vfolderId, first: $first) {
    count
    edges { node { ...Task } }
  }
}
"""
)

CANCEL_IMPORT_TASK = (
    _WHOLE_TASK
    + """
mutation CancelImportTask($id: ID!) { cancelImportTask(input: {taskId: $id}) { task { ...WholeTask } } }
"""
)

RETRY_IMPORT_TASK = (
    _WHOLE_TASK
    + """
mutation RetryImportTask($id: ID!) { retryImportTask(input: {taskId: $id}) { task { ...WholeTask } } }
"""
)

VFOLDER = _VFOLDER + "query Folder($id: ID!) { vfolder(id: $id) { ...Folder } }"

VFOLDERS = (
    _VFOLDER
    + """
query Folders($search: String, $writable: Boolean, $first: Int!, $after: String) {
  vfolders(search: $search, writableOnly: $writable, first: $first, after: $after) {
    pageInfo { hasNextPage endCursor }
    edges { node { ...Folder } }
  }
}
"""
)

CREATE_VFOLDER = (
    _VFOLDER
    + """
mutation CreateFolder($name: String!, $usageMode: VFolderUsageMode!, $host: String, $projectId: ID) {
  createVfolder(input: {name: $name, usageMode: $usageMode, host: $host, projectId: $projectId}) {
    vfolder { ...Folder }
  }
}
"""
)

VFOLDER_USAGE = "query FolderUsage($id: ID!) { vfolder(id: $id) { usage { usedBytes fileCount } } }"

DELETE_VFOLDER = (
    _VFOLDER
    + """
mutation DeleteFolder($id: ID!) { deleteVfolder(input: {vfolderId: $id}) { vfolder { ...Folder } } }
"""
)

VOLUMES = "query Volumes { volumes { host backend capabilities totalBytes usedBytes } }"

VFOLDER_FILES = """
query FolderFiles($id: ID!, $path: String) {
  vfolderFiles(vfolderId: $id, path: $path) { path size isDirectory modifiedAt }
}
"""

ME = _USER + "query Me { me { ...Person } }"

USERS = (
    _USER
    + """
query Users($search: String, $first: Int!, $after: String) {
  users(search: $search, first: $first, after: $after) {
    pageInfo { hasNextPage endCursor }
    edges { node { ...Person } }
  }
}
"""
)

CREATE_USER = (
    _USER
    + """
mutation CreateUser($email: String!, $role: UserRole!) {
  createUser(input: {email: $email, role: $role}) { user { ...Person } }
}
"""
)

SET_USER_STATUS = (
    _USER
    + """
mutation SetUserStatus($id: ID!, $status: UserStatus!) {
  setUserStatus(input: {userId: $id, status: $status}) { user { ...Person } }
}
"""
)

TOKENS = """
query Tokens($userId: ID, $activeOnly: Boolean, $first: Int!, $after: String) {
  tokens(userId: $userId, activeOnly: $activeOnly, first: $first, after: $after) {
    pageInfo { hasNextPage endCursor }
    edges { node { id name createdAt expiresAt revokedAt user { id email } } }
  }
}
"""

CREATE_TOKEN = """
mutation CreateToken($userId: ID, $name: String!, $expiresAt: DateTime) {
  createToken(input: {userId: $userId, name: $name, expiresAt: $expiresAt}) { id token }
}
"""  # noqa: S105 -- a document, not a token

REVOKE_TOKEN = "mutation RevokeToken($id: ID!) { revokeToken(input: {id: $id}) { id } }"  # noqa: S105 -- as above
