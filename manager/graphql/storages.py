"""Artifact storages that were entered here: directories of a proxy, object storages, and their namespaces."""

from typing import Annotated
from uuid import UUID

import strawberry
from sqlalchemy import Select, select

from manager import models
from manager.access import require_admin
from manager.graphql.connections import (
    Connection,
    connect,
    connection,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.fields import MASK, Node, column, field, given, mutation
from manager.graphql.ids import parse_id
from manager.graphql.loaders import NestedList
from manager.models import ArtifactStorageType
from manager.paging import Order, PageRequest, SortKey
from manager.storages import StorageChanges


@strawberry.type(
    description="A bucket of an object storage, or a directory of a VFS storage. "
    "Imports name it PROXY:STORAGE.NAMESPACE."
)
class StorageNamespace(Node):
    """A part of a storage; holds its row."""

    row: strawberry.Private[models.StorageNamespace]

    namespace: str = column("namespace", "The bucket or directory.")

    @field("The plain UUID of its storage.")
    def storage_id(self) -> strawberry.ID:
        """Name the storage, as registerStorageNamespace takes it."""
        return strawberry.ID(str(self.row.storage_id))


@strawberry.type(description="An object storage that speaks S3. Artifacts go into its namespaces.")
class ObjectStorage(Node):
    """An object storage; holds its row."""

    row: strawberry.Private[models.ArtifactStorage]

    name: str = column("name", "Its name.")
    host: str = column("proxy", "The storage proxy that reads and writes it.")
    endpoint: str = column("endpoint", "Where it answers.")
    region: str = column("region", "The region that requests are signed for.")

    @field("A mask. The key itself is never told.")
    def access_key(self) -> str:
        """Hide the key."""
        return MASK

    @field("A mask. The key itself is never told.")
    def secret_key(self) -> str:
        """Hide the key."""
        return MASK

    @listed("Its namespaces, by name.")
    async def namespaces(
        self,
        info: Info,
        request: PageRequest,
    ) -> Connection[StorageNamespace] | None:
        """Load this page of every storage in the answer at once."""
        loaders, namespace = info.context.loaders, models.StorageNamespace
        nested = loaders.nested(
            ("namespaces", request),
            lambda: NestedList(
                select(namespace),
                Order.by([SortKey("namespace", namespace.namespace)], namespace.id),
                request,
                namespace.storage_id,
            ),
        )
        page = await loaders.pages(nested).load(self.row.id)
        return connection(
            page, lambda row: StorageNamespace(row=row[0]), lambda: loaders.counts(nested).load(self.row.id)
        )


@strawberry.type(name="VFSStorage", description="A directory of a storage proxy that artifacts are put in.")
class VFSStorage(Node):
    """A directory of a storage proxy; holds its row."""

    row: strawberry.Private[models.ArtifactStorage]

    name: str = column("name", "Its name.")
    host: str = column("proxy", "The storage proxy that reads and writes it.")
    base_path: str = column("base_path", "The directory on the proxy's host.")


@strawberry.input(description="A new object storage.")
class CreateObjectStorageInput:
    """A new object storage."""

    name: str = strawberry.field(description="Its name, not yet taken.")
    host: str = strawberry.field(description="The storage proxy that is to read and write it.")
    access_key: str = strawberry.field(description="The access key. It cannot be read again.")
    secret_key: str = strawberry.field(description="The secret key. It cannot be read again.")
    endpoint: str = strawberry.field(description="Where it answers, http(s)://HOST; it is tried at once.")
    region: str = strawberry.field(description="The region that requests are signed for.")


@strawberry.input(description="What to change; what is left out stays.")
class UpdateObjectStorageInput:
    """What to change; what is left out stays."""

    id: strawberry.ID = strawberry.field(description="The storage's id.")
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    host: str | None = strawberry.field(default=strawberry.UNSET, description="The storage proxy.")
    access_key: str | None = strawberry.field(default=strawberry.UNSET, description="The access key.")
    secret_key: str | None = strawberry.field(default=strawberry.UNSET, description="The secret key.")
    endpoint: str | None = strawberry.field(default=strawberry.UNSET, description="Where it answers.")
    region: str | None = strawberry.field(
        default=strawberry.UNSET, description="The region that requests are signed for."
    )


@strawberry.input(description="Which storage.")
class DeleteObjectStorageInput:
    """Which storage."""

    id: strawberry.ID = strawberry.field(description="The storage's id.")


@strawberry.input(name="CreateVFSStorageInput", description="A new directory for artifacts.")
class CreateVFSStorageInput:
    """A new directory for artifacts."""

    name: str = strawberry.field(description="Its name, not yet taken.")
    host: str = strawberry.field(description="The storage proxy that is to read and write it.")
    base_path: str = strawberry.field(
        description="The directory on the proxy's host, beneath one that its operator allows; made if it is missing."
    )


@strawberry.input(name="UpdateVFSStorageInput", description="What to change; what is left out stays.")
class UpdateVFSStorageInput:
    """What to change; what is left out stays."""

    id: strawberry.ID = strawberry.field(description="The storage's id.")
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    host: str | None = strawberry.field(default=strawberry.UNSET, description="The storage proxy.")
    base_path: str | None = strawberry.field(default=strawberry.UNSET, description="The directory.")


@strawberry.input(name="DeleteVFSStorageInput", description="Which storage.")
class DeleteVFSStorageInput:
    """Which storage."""

    id: strawberry.ID = strawberry.field(description="The storage's id.")


@strawberry.input(description="A new namespace.")
class RegisterStorageNamespaceInput:
    """A new namespace."""

    storage_id: UUID = strawberry.field(description="The plain UUID of the storage.")
    namespace: str = strawberry.field(
        description="The bucket, which exists, or the directory; 3 to 63 lower-case letters, digits, dots, hyphens."
    )


@strawberry.input(description="Which namespace.")
class UnregisterStorageNamespaceInput:
    """Which namespace."""

    storage_id: UUID = strawberry.field(description="The plain UUID of the storage.")
    namespace: str = strawberry.field(description="The bucket or directory.")


@strawberry.type(description="The new storage.")
class CreateObjectStoragePayload:
    """The new storage."""

    object_storage: ObjectStorage = strawberry.field(description="The storage.")


@strawberry.type(description="The storage as it is now.")
class UpdateObjectStoragePayload:
    """The storage as it is now."""

    object_storage: ObjectStorage = strawberry.field(description="The storage.")


@strawberry.type(description="The storage that is forgotten; what lies there is left alone.")
class DeleteObjectStoragePayload:
    """The storage that is forgotten."""

    id: UUID = strawberry.field(description="The id that it had.")


@strawberry.type(name="CreateVFSStoragePayload", description="The new storage.")
class CreateVFSStoragePayload:
    """The new storage."""

    vfs_storage: VFSStorage = strawberry.field(description="The storage.")


@strawberry.type(name="UpdateVFSStoragePayload", description="The storage as it is now.")
class UpdateVFSStoragePayload:
    """The storage as it is now."""

    vfs_storage: VFSStorage = strawberry.field(description="The storage.")


@strawberry.type(
    name="DeleteVFSStoragePayload",
    description="The storage that is forgotten; what lies there is left alone.",
)
class DeleteVFSStoragePayload:
    """The storage that is forgotten."""

    id: UUID = strawberry.field(description="The id that it had.")


@strawberry.type(description="The storage that has the namespace now.")
class RegisterStorageNamespacePayload:
    """The storage that has the namespace now."""

    id: UUID = strawberry.field(description="The storage's id.")


@strawberry.type(description="The storage that has the namespace no more.")
class UnregisterStorageNamespacePayload:
    """The storage that has the namespace no more."""

    id: UUID = strawberry.field(description="The storage's id.")


StorageId = Annotated[strawberry.ID, strawberry.argument(name="id", description="The storage's id.")]


@strawberry.type
class StorageQuery:
    """The queries about artifact storages."""

    @field("An object storage that was entered here; null if there is none. For administrators.")
    async def object_storage(self, info: Info, key: StorageId) -> ObjectStorage | None:
        """Load one storage."""
        row = await _one(info, key, ArtifactStorageType.OBJECT, "ObjectStorage")
        return ObjectStorage(row=row) if row else None

    @listed("The object storages that were entered here, by name. For administrators.", default=None)
    async def object_storages(
        self,
        info: Info,
        request: PageRequest,
    ) -> Connection[ObjectStorage] | None:
        """Load one page of the storages."""
        await require_admin(info.context.caller)
        statement = _storages(ArtifactStorageType.OBJECT)
        return await connect(info, statement, _ORDER, request, lambda row: ObjectStorage(row=row[0]))

    @field("A VFS storage that was entered here; null if there is none. For administrators.")
    async def vfs_storage(self, info: Info, key: StorageId) -> VFSStorage | None:
        """Load one storage."""
        row = await _one(info, key, ArtifactStorageType.VFS, "VFSStorage")
        return VFSStorage(row=row) if row else None

    @listed("The VFS storages that were entered here, by name. For administrators.", default=None)
    async def vfs_storages(
        self,
        info: Info,
        request: PageRequest,
    ) -> Connection[VFSStorage] | None:
        """Load one page of the storages."""
        await require_admin(info.context.caller)
        statement = _storages(ArtifactStorageType.VFS)
        return await connect(info, statement, _ORDER, request, lambda row: VFSStorage(row=row[0]))


@strawberry.type
class StorageMutation:
    """The mutations of artifact storages."""

    @mutation("Enter an object storage; its proxy tries it at once. For administrators.")
    async def create_object_storage(
        self,
        info: Info,
        asked: Annotated[
            CreateObjectStorageInput, strawberry.argument(name="input", description="The storage.")
        ],
    ) -> CreateObjectStoragePayload | None:
        """Create a storage."""
        row = await info.context.services.storages.create(
            info.context.caller,
            ArtifactStorageType.OBJECT,
            StorageChanges(
                name=asked.name,
                host=asked.host,
                endpoint=asked.endpoint,
                region=asked.region,
                secrets={"access_key": asked.access_key, "secret_key": asked.secret_key},
            ),
        )
        return CreateObjectStoragePayload(object_storage=ObjectStorage(row=row))

    @mutation("Change an object storage; one in use keeps its name and place. For administrators.")
    async def update_object_storage(
        self,
        info: Info,
        asked: Annotated[
            UpdateObjectStorageInput, strawberry.argument(name="input", description="What to change.")
        ],
    ) -> UpdateObjectStoragePayload | None:
        """Update a storage."""
        keys = {"access_key": given(asked.access_key), "secret_key": given(asked.secret_key)}
        row = await info.context.services.storages.update(
            info.context.caller,
            ArtifactStorageType.OBJECT,
            parse_id(asked.id, "ObjectStorage", field="input.id"),
            StorageChanges(
                name=given(asked.name),
                host=given(asked.host),
                endpoint=given(asked.endpoint),
                region=given(asked.region),
                secrets={name: value for name, value in keys.items() if value is not None},
            ),
        )
        return UpdateObjectStoragePayload(object_storage=ObjectStorage(row=row))

    @mutation("Forget an object storage that nothing needs; its objects stay. For administrators.")
    async def delete_object_storage(
        self,
        info: Info,
        asked: Annotated[
            DeleteObjectStorageInput, strawberry.argument(name="input", description="Which storage.")
        ],
    ) -> DeleteObjectStoragePayload | None:
        """Delete a storage."""
        key = parse_id(asked.id, "ObjectStorage", field="input.id")
        gone = await info.context.services.storages.delete(
            info.context.caller, ArtifactStorageType.OBJECT, key
        )
        return DeleteObjectStoragePayload(id=gone)

    @mutation(
        "Enter a directory for artifacts; its proxy tries it at once. For administrators.",
        name="createVFSStorage",
    )
    async def create_vfs_storage(
        self,
        info: Info,
        asked: Annotated[
            CreateVFSStorageInput, strawberry.argument(name="input", description="The storage.")
        ],
    ) -> CreateVFSStoragePayload | None:
        """Create a storage."""
        row = await info.context.services.storages.create(
            info.context.caller,
            ArtifactStorageType.VFS,
            StorageChanges(name=asked.name, host=asked.host, base_path=asked.base_path),
        )
        return CreateVFSStoragePayload(vfs_storage=VFSStorage(row=row))

    @mutation(
        "Change a VFS storage; one in use keeps its name and place. For administrators.",
        name="updateVFSStorage",
    )
    async def update_vfs_storage(
        self,
        info: Info,
        asked: Annotated[
            UpdateVFSStorageInput, strawberry.argument(name="input", description="What to change.")
        ],
    ) -> UpdateVFSStoragePayload | None:
        """Update a storage."""
        row = await info.context.services.storages.update(
            info.context.caller,
            ArtifactStorageType.VFS,
            parse_id(asked.id, "VFSStorage", field="input.id"),
            StorageChanges(name=given(asked.name), host=given(asked.host), base_path=given(asked.base_path)),
        )
        return UpdateVFSStoragePayload(vfs_storage=VFSStorage(row=row))

    @mutation(
        "Forget a VFS storage that nothing needs; its files stay. For administrators.",
        name="deleteVFSStorage",
    )
    async def delete_vfs_storage(
        self,
        info: Info,
        asked: Annotated[
            DeleteVFSStorageInput, strawberry.argument(name="input", description="Which storage.")
        ],
    ) -> DeleteVFSStoragePayload | None:
        """Delete a storage."""
        key = parse_id(asked.id, "VFSStorage", field="input.id")
        gone = await info.context.services.storages.delete(info.context.caller, ArtifactStorageType.VFS, key)
        return DeleteVFSStoragePayload(id=gone)

    @mutation("Let artifacts be imported into a bucket or directory of a storage. For administrators.")
    async def register_storage_namespace(
        self,
        info: Info,
        asked: Annotated[
            RegisterStorageNamespaceInput, strawberry.argument(name="input", description="The namespace.")
        ],
    ) -> RegisterStorageNamespacePayload | None:
        """Register a namespace."""
        storage_id = await info.context.services.storages.register_namespace(
            info.context.caller, asked.storage_id, asked.namespace
        )
        return RegisterStorageNamespacePayload(id=storage_id)

    @mutation("Forget a namespace that nothing needs; what lies there stays. For administrators.")
    async def unregister_storage_namespace(
        self,
        info: Info,
        asked: Annotated[
            UnregisterStorageNamespaceInput, strawberry.argument(name="input", description="Which namespace.")
        ],
    ) -> UnregisterStorageNamespacePayload | None:
        """Unregister a namespace."""
        storage_id = await info.context.services.storages.unregister_namespace(
            info.context.caller, asked.storage_id, asked.namespace
        )
        return UnregisterStorageNamespacePayload(id=storage_id)


_ORDER = Order.by([SortKey("name", models.ArtifactStorage.name)], models.ArtifactStorage.id)


def _storages(kind: ArtifactStorageType) -> Select[models.ArtifactStorage]:
    return select(models.ArtifactStorage).where(models.ArtifactStorage.type == kind)


async def _one(
    info: Info, key: strawberry.ID, kind: ArtifactStorageType, type_name: str
) -> models.ArtifactStorage | None:
    await require_admin(info.context.caller)
    row = await info.context.loaders.storages.load(parse_id(key, type_name, field="id"))
    return row if row is not None and row.type is kind else None
