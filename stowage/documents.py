"""Every GraphQL document that the command line sends, and the shape of what comes back."""

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

_WHOLE_TASK = (
    _TASK
    + """
fragment WholeTask on ImportTask {
  ...Task
  verificationResult {
    verifiers {
      name
      result {
        success infectedCount scannedCount scannedAt scanTime error
        metadata { entries { key value } }
      }
    }
  }
}
"""
)

_VFOLDER = """
fragment Folder on VFolder { id name host usageMode ownershipType permission status createdAt }
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
mutation CreateFolder($name: String!, $usageMode: VFolderUsageMode!, $host: String) {
  createVfolder(input: {name: $name, usageMode: $usageMode, host: $host}) { vfolder { ...Folder } }
}
"""
)

VFOLDER_FILES = """
query FolderFiles($id: ID!, $path: String) {
  vfolderFiles(vfolderId: $id, path: $path) { path size isDirectory modifiedAt }
}
"""
