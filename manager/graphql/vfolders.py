"""Folders and their volumes."""

import asyncio
from datetime import datetime
from typing import Annotated

import strawberry
from sqlalchemy import ColumnElement

from manager import models
from manager.access import UPLOAD_FILE, host_allows, visible_vfolders
from manager.graphql.connections import (
    Connection,
    connect,
    connection,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.enums import (
    VFolderOwnershipType,
    VFolderPermission,
    VFolderStatus,
    VFolderUsageMode,
)
from manager.graphql.fields import Node, column, field, mutation
from manager.graphql.ids import parse_id
from manager.graphql.loaders import SeenVFolder, kept
from manager.graphql.projects import Project
from manager.graphql.scalars import ByteSize
from manager.paging import Order, PageRequest, SortKey, page_of
from proxy_client import wire
from proxy_client.errors import StowageError

# Seconds that a list waits for a proxy before it shows its folders without their usage.
USAGE_TIMEOUT = 5.0
# The proxy looks around for five seconds.
MODELS_TIMEOUT = 10.0


@strawberry.type(description="What a folder holds.")
class VFolderUsage:
    """What a folder holds."""

    used_bytes: ByteSize = strawberry.field(description="The size of its files.")
    file_count: int | None = strawberry.field(description="The number of its files, where the volume counts.")
    limit_bytes: ByteSize | None = strawberry.field(
        description="The limit of the quota scope that the folder counts against; null is no limit."
    )


@strawberry.type(
    name="VFolderModel", description="A model in a folder, as the manifest that its import left tells."
)
class VFolderModel:
    """A model in a folder; holds what its manifest tells, which whoever may write to the folder may have changed."""

    found: strawberry.Private[wire.VFolderModel]

    artifact: str = strawberry.field(description="The artifact's name, `org/name`.")
    version: str = strawberry.field(description="The revision that was imported.")
    path: str = strawberry.field(description="The directory that it fills; `/` is the folder's root.")
    registry: str = strawberry.field(description="The name of the registry that it came from.")
    commit: str = strawberry.field(description="The commit that was imported.")
    size: ByteSize = strawberry.field(description="The size of all its files.")
    file_count: int = strawberry.field(description="The number of its files.")
    imported_at: datetime = strawberry.field(description="When it was imported.")
    task_id: strawberry.ID = strawberry.field(description="The import's plain UUID.")

    @classmethod
    def of(cls, found: wire.VFolderModel) -> "VFolderModel":
        """Present a proxy's answer."""
        return cls(
            found=found,
            artifact=found.artifact,
            version=found.version,
            path=found.path,
            registry=found.registry,
            commit=found.commit,
            size=ByteSize(found.size),
            file_count=found.file_count,
            imported_at=found.imported_at,
            task_id=strawberry.ID(str(found.task_id)),
        )

    @field("The address of who imported it; null where the caller may not see the import.")
    async def imported_by(self, info: Info) -> str | None:
        """Name the user, to those who could also read it from the import itself."""
        context, user_id = info.context, self.found.requested_by
        if user_id == context.caller.user_id:
            return context.caller.email
        if not context.caller.is_admin:
            task = await context.loaders.tasks.load(self.found.task_id)
            if task is None or task.requested_by_id != user_id:
                return None
        user = await context.loaders.users.load(user_id)
        return user.email if user else None


def _place_of(model: wire.VFolderModel) -> str:
    return f"{model.path}\t{model.artifact}@{model.version}"


@strawberry.type(description="A folder on a shared volume.")
class VFolder(Node):
    """A folder on a shared volume; holds its row and the caller's permission."""

    row: strawberry.Private[models.VFolder]
    seen: strawberry.Private[SeenVFolder]

    name: str = column("name", "The folder's name, unique among its owner's.")
    host: str = column("host", "Where it lies, `proxy:volume`.")
    usage_mode: VFolderUsageMode = column("usage_mode", "What it is for.")
    ownership_type: VFolderOwnershipType = column("ownership_type", "Whether a user or a project owns it.")
    status: VFolderStatus = column("status", "Where it stands; READY and MOUNTED accept imports.")
    quota_scope_id: str = column("quota_scope_id", "Whose quota it counts against, `user:…` or `project:…`.")
    created_at: datetime = column("created_at", "When it was created.")

    @classmethod
    def of(cls, seen: SeenVFolder) -> "VFolder":
        """Present a folder as the caller sees it."""
        return cls(row=seen.row, seen=seen)

    @field("What the caller may do with its files.")
    def permission(self) -> VFolderPermission:
        """Answer the caller's effective permission."""
        return self.seen.permission

    @field("The project that owns it; null for a user's folder.")
    async def project(self, info: Info) -> Project | None:
        """Load the project."""
        if self.row.project_id is None:
            return None
        row = await info.context.loaders.projects.load(self.row.project_id)
        return Project(row=row) if row else None

    @listed("The models in it, by path, as their manifests tell: the first thousand that a search finds, those near its "
           "root first; asked of its storage proxy, and null when that gives no answer.")  # fmt: skip
    async def models(
        self,
        info: Info,
        request: PageRequest,
    ) -> Connection[VFolderModel] | None:
        """Ask the proxy."""
        if not self.seen.visible:
            return None
        try:
            async with asyncio.timeout(MODELS_TIMEOUT):
                found = await info.context.services.vfolders.models(self.row)
        except (StowageError, TimeoutError):
            return None
        found.sort(key=_place_of)

        async def count() -> int:
            return len(found)

        return connection(page_of(found, _place_of, request), VFolderModel.of, count)

    @field("What it holds, asked of its storage proxy; null when that gives no answer.")
    async def usage(self, info: Info) -> VFolderUsage | None:
        """Ask the proxy."""
        if not self.seen.visible:
            return None
        try:
            async with asyncio.timeout(USAGE_TIMEOUT):
                usage = await info.context.services.vfolders.usage(self.row)
        except (StowageError, TimeoutError):
            return None
        return VFolderUsage(
            used_bytes=ByteSize(usage.used_bytes),
            file_count=usage.file_count,
            limit_bytes=None if usage.limit_bytes is None else ByteSize(usage.limit_bytes),
        )


@strawberry.type(description="A file or directory in a folder.")
class VFolderFile:
    """A file or directory in a folder."""

    path: str = strawberry.field(description="Its path from the folder's root.")
    size: ByteSize = strawberry.field(description="The file's size; 0 for a directory.")
    is_directory: bool = strawberry.field(description="Whether it is a directory.")
    modified_at: datetime = strawberry.field(description="When its bytes last changed.")

    @classmethod
    def of(cls, entry: wire.VFolderFile) -> "VFolderFile":
        """Present a proxy's answer."""
        return cls(
            path=entry.path,
            size=ByteSize(entry.size),
            is_directory=entry.is_directory,
            modified_at=entry.modified_at,
        )


@strawberry.type(description="A file system that holds folders.")
class Volume:
    """A file system that holds folders."""

    host: str = strawberry.field(description="Its name for createVfolder, `proxy:volume`.")
    backend: str = strawberry.field(description="What kind of file system it is.")
    capabilities: list[str] = strawberry.field(description="What it can do.")
    total_bytes: ByteSize | None = strawberry.field(description="Its size, where it tells.")
    used_bytes: ByteSize | None = strawberry.field(description="What of it is used, where it tells.")

    @classmethod
    def of(cls, host: str, volume: wire.VolumeInfo) -> "Volume":
        """Present a proxy's answer."""
        total, used = volume.total_bytes, volume.used_bytes
        return cls(
            host=host,
            backend=volume.backend,
            capabilities=volume.capabilities,
            total_bytes=None if total is None else ByteSize(total),
            used_bytes=None if used is None else ByteSize(used),
        )


@strawberry.input(name="CreateVFolderInput", description="A new folder.")
class CreateVFolderInput:
    """A new folder."""

    name: str = strawberry.field(description="Its name, unique among its owner's folders.")
    usage_mode: VFolderUsageMode = strawberry.field(
        default=VFolderUsageMode.GENERAL, description="What it is for."
    )
    host: str | None = strawberry.field(
        default=None, description="Where it lies, `proxy:volume`; on the default volume without it."
    )
    project_id: strawberry.ID | None = strawberry.field(
        default=None, description="The project that owns it; without one it is the caller's own."
    )


@strawberry.type(name="CreateVFolderPayload", description="The new folder.")
class CreateVFolderPayload:
    """The new folder."""

    vfolder: VFolder = strawberry.field(description="The folder.")


@strawberry.input(name="DeleteVFolderInput", description="Which folder.")
class DeleteVFolderInput:
    """Which folder."""

    vfolder_id: strawberry.ID = strawberry.field(description="The folder's id.")


@strawberry.type(name="DeleteVFolderPayload", description="The folder that was deleted.")
class DeleteVFolderPayload:
    """The folder that was deleted."""

    vfolder: VFolder = strawberry.field(
        description="The folder; DELETE_COMPLETE, or DELETE_PENDING until its storage proxy answers."
    )


@strawberry.type
class VFolderQuery:
    """The queries about folders."""

    @field("A folder; null if there is none that the caller may see.")
    async def vfolder(
        self,
        info: Info,
        key: Annotated[strawberry.ID, strawberry.argument(name="id", description="The folder's id.")],
    ) -> VFolder | None:
        """Load one folder."""
        seen = await info.context.loaders.vfolders.load(parse_id(key, "VFolder", field="id"))
        return VFolder.of(seen) if seen else None

    @listed("The folders that the caller may see, by name.")
    async def vfolders(
        self,
        info: Info,
        request: PageRequest,
        *,
        writable_only: Annotated[
            bool | None, strawberry.argument(description="Only folders that accept an import by the caller.")
        ] = strawberry.UNSET,
        usage_mode: Annotated[
            VFolderUsageMode | None, strawberry.argument(description="Only folders for this use.")
        ] = strawberry.UNSET,
        search: Annotated[
            str | None, strawberry.argument(description="Only names that hold this text, in any case.")
        ] = strawberry.UNSET,
    ) -> Connection[VFolder] | None:
        """Load one page of the folders."""
        caller, folder = info.context.caller, models.VFolder
        statement = visible_vfolders(caller)
        if usage_mode:
            statement = statement.where(folder.usage_mode == usage_mode)
        if search:
            statement = statement.where(folder.name.icontains(search, autoescape=True))
        if writable_only:
            permission: ColumnElement[VFolderPermission] = statement.selected_columns["permission"]
            statement = statement.where(
                permission.in_([VFolderPermission.READ_WRITE, VFolderPermission.RW_DELETE]),
                folder.status.in_([VFolderStatus.READY, VFolderStatus.MOUNTED]),
                folder.unmanaged_path.is_(None),
                host_allows(caller, folder.host, UPLOAD_FILE),
            )
        order = Order.by([SortKey("name", folder.name)], folder.id)
        return await connect(
            info, statement, order, request, lambda row: VFolder.of(SeenVFolder(row[0], row[1]))
        )

    @field("The files and directories directly in a directory of a folder, by path.")
    async def vfolder_files(
        self,
        info: Info,
        vfolder_id: Annotated[strawberry.ID, strawberry.argument(description="The folder's id.")],
        path: Annotated[
            str | None, strawberry.argument(description="The directory, from the root; the root without it.")
        ] = strawberry.UNSET,
    ) -> list[VFolderFile]:
        """Ask the folder's proxy."""
        context = info.context
        folder_id = parse_id(vfolder_id, "VFolder", field="vfolderId")
        entries = await context.services.vfolders.files(context.caller, folder_id, path or None)
        return [VFolderFile.of(entry) for entry in entries]

    @field("The volumes that the caller may use, asked of the storage proxies.")
    async def volumes(self, info: Info) -> list[Volume]:
        """Ask the proxies."""
        context = info.context
        volumes = await context.services.vfolders.volumes(context.caller)
        return [Volume.of(host, volume) for host, volume in volumes]


@strawberry.type
class VFolderMutation:
    """The mutations of folders."""

    @mutation("Create a folder.")
    async def create_vfolder(
        self,
        info: Info,
        asked: Annotated[CreateVFolderInput, strawberry.argument(name="input", description="The folder.")],
    ) -> CreateVFolderPayload:
        """Create a folder; its creator may do everything with it."""
        context = info.context
        project_id = (
            None
            if asked.project_id is None
            else parse_id(asked.project_id, "Project", field="input.projectId")
        )
        row = await context.services.vfolders.create(
            context.caller,
            name=asked.name,
            usage_mode=asked.usage_mode,
            host=asked.host,
            project_id=project_id,
        )
        return CreateVFolderPayload(vfolder=VFolder.of(kept(await context.loaders.vfolders.load(row.id))))

    @mutation("Delete a folder with everything in it. Needs RW_DELETE, and no import into it that is open.")
    async def delete_vfolder(
        self,
        info: Info,
        asked: Annotated[DeleteVFolderInput, strawberry.argument(name="input", description="Which folder.")],
    ) -> DeleteVFolderPayload:
        """Delete a folder."""
        context = info.context
        vfolder_id = parse_id(asked.vfolder_id, "VFolder", field="input.vfolderId")
        deleted = await context.services.vfolders.delete(context.caller, vfolder_id)
        seen = SeenVFolder(deleted.vfolder, deleted.permission, visible=False)
        return DeleteVFolderPayload(vfolder=VFolder.of(seen))
