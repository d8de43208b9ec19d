"""Registries: where artifacts come from."""

from typing import Annotated
from uuid import UUID

import strawberry
from sqlalchemy import Select, select

from manager import models
from manager.access import require_admin
from manager.graphql.connections import (
    Connection,
    connect,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.enums import ArtifactRegistryType, ArtifactType
from manager.graphql.fields import MASK, Node, column, field, given, mutation
from manager.graphql.ids import global_id, parse_id
from manager.paging import Order, PageRequest, SortKey
from manager.registries import RegistryChanges

NODE_OF = {
    ArtifactRegistryType.HUGGINGFACE: "HuggingFaceRegistry",
    ArtifactRegistryType.RESERVOIR: "ReservoirRegistry",
}
REGISTRY_TYPES = ("ArtifactRegistry", *NODE_OF.values(), "ArtifactRegistryMeta")


@strawberry.type(description="A registry of any type, in short.")
class ArtifactRegistry:
    """A registry of any type, in short; holds its row."""

    row: strawberry.Private[models.ArtifactRegistry]

    name: str = column("name", "Its name.")
    type: ArtifactRegistryType = column("type", "The protocol that it speaks.")

    @field("The global id. Wherever a registry's id is asked for, it is accepted.")
    def id(self) -> strawberry.ID:
        """Name the registry."""
        return global_id("ArtifactRegistry", self.row.id)

    @field("The id of the same registry as a HuggingFaceRegistry or ReservoirRegistry.")
    def registry_id(self) -> strawberry.ID:
        """Name the registry with its type."""
        return global_id(NODE_OF[self.row.type], self.row.id)


@strawberry.type(description="A registry of another Stowage, as that one describes it.")
class ArtifactRegistryMeta(Node):
    """A registry of another Stowage; holds its row."""

    row: strawberry.Private[models.ArtifactRegistry]

    name: str = column("name", "Its name there.")
    type: ArtifactRegistryType = column("type", "The protocol that it speaks.")
    url: str = column("url", "Its endpoint.")

    @field("Its id there.")
    def registry_id(self) -> strawberry.ID:
        """Name the registry with its type."""
        return global_id(NODE_OF[self.row.type], self.row.id)


@strawberry.type(description="A hub that speaks the Hugging Face Hub's protocol.")
class HuggingFaceRegistry(Node):
    """A hub that speaks the Hugging Face Hub's protocol; holds its row."""

    row: strawberry.Private[models.ArtifactRegistry]

    url: str = column("url", "The endpoint, used for every call.")
    name: str = column("name", "Its name.")

    @field("A mask where a token was entered, null where none was. The token itself is never told.")
    def token(self) -> str | None:
        """Tell whether there is a token."""
        return MASK if self.row.has_secrets else None


@strawberry.type(description="Another Stowage. Scans and imports from one answer UNSUPPORTED_REGISTRY.")
class ReservoirRegistry(Node):
    """Another Stowage; holds its row."""

    row: strawberry.Private[models.ArtifactRegistry]

    name: str = column("name", "Its name.")
    endpoint: str = column("url", "The endpoint of its API.")

    @field("A mask. The key itself is never told.")
    def access_key(self) -> str:
        """Hide the key."""
        return MASK

    @field("A mask. The key itself is never told.")
    def secret_key(self) -> str:
        """Hide the key."""
        return MASK

    @field("The version of its API.")
    def api_version(self) -> str:
        """Tell the version; a registry of the configuration file has none of its own."""
        return self.row.api_version or "v1"

    @field("The registries that it has; null where it was not asked, as scans are not offered.")
    def remote_artifact_registries(self) -> Connection[ArtifactRegistryMeta] | None:
        """Tell what is known: nothing is asked of another Stowage."""
        return None


@strawberry.input(description="A new registry.")
class CreateHuggingFaceRegistryInput:
    """A new registry."""

    name: str = strawberry.field(description="Its name, not yet taken.")
    url: str = strawberry.field(description="The endpoint, http(s)://HOST; it is tried at once.")
    token: str | None = strawberry.field(
        default=None, description="The access token, if the registry wants one. It cannot be read again."
    )


@strawberry.input(description="What to change; what is left out stays.")
class UpdateHuggingFaceRegistryInput:
    """What to change; what is left out stays."""

    id: strawberry.ID = strawberry.field(description="The registry's id.")
    url: str | None = strawberry.field(default=strawberry.UNSET, description="The endpoint.")
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    token: str | None = strawberry.field(
        default=strawberry.UNSET, description="The access token; null takes it away."
    )


@strawberry.input(description="Which registry.")
class DeleteHuggingFaceRegistryInput:
    """Which registry."""

    id: strawberry.ID = strawberry.field(description="The registry's id.")


@strawberry.input(description="Another Stowage.")
class CreateReservoirRegistryInput:
    """Another Stowage."""

    name: str = strawberry.field(description="Its name, not yet taken.")
    endpoint: str = strawberry.field(description="The endpoint of its API, http(s)://HOST.")
    access_key: str = strawberry.field(description="The access key. It cannot be read again.")
    secret_key: str = strawberry.field(description="The secret key. It cannot be read again.")
    api_version: str = strawberry.field(description="The version of its API, such as v1.")


@strawberry.input(description="What to change; what is left out stays.")
class UpdateReservoirRegistryInput:
    """What to change; what is left out stays."""

    id: strawberry.ID = strawberry.field(description="The registry's id.")
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Its name.")
    endpoint: str | None = strawberry.field(default=strawberry.UNSET, description="The endpoint of its API.")
    access_key: str | None = strawberry.field(default=strawberry.UNSET, description="The access key.")
    secret_key: str | None = strawberry.field(default=strawberry.UNSET, description="The secret key.")
    api_version: str | None = strawberry.field(
        default=strawberry.UNSET, description="The version of its API."
    )


@strawberry.input(description="Which registry.")
class DeleteReservoirRegistryInput:
    """Which registry."""

    id: strawberry.ID = strawberry.field(description="The registry's id.")


@strawberry.type(description="The new registry.")
class CreateHuggingFaceRegistryPayload:
    """The new registry."""

    huggingface_registry: HuggingFaceRegistry = strawberry.field(description="The registry.")


@strawberry.type(description="The registry as it is now.")
class UpdateHuggingFaceRegistryPayload:
    """The registry as it is now."""

    huggingface_registry: HuggingFaceRegistry = strawberry.field(description="The registry.")


@strawberry.type(description="The registry that is gone.")
class DeleteHuggingFaceRegistryPayload:
    """The registry that is gone."""

    id: UUID = strawberry.field(description="The id that it had.")


@strawberry.type(description="The new registry.")
class CreateReservoirRegistryPayload:
    """The new registry."""

    reservoir: ReservoirRegistry = strawberry.field(description="The registry.")


@strawberry.type(description="The registry as it is now.")
class UpdateReservoirRegistryPayload:
    """The registry as it is now."""

    reservoir: ReservoirRegistry = strawberry.field(description="The registry.")


@strawberry.type(description="The registry that is gone.")
class DeleteReservoirRegistryPayload:
    """The registry that is gone."""

    id: UUID = strawberry.field(description="The id that it had.")


RegistryId = Annotated[strawberry.ID, strawberry.argument(name="id", description="The registry's id.")]


@strawberry.type
class RegistryQuery:
    """The queries about registries."""

    @field("A registry of the type HUGGINGFACE; null if there is none. For administrators.")
    async def huggingface_registry(self, info: Info, key: RegistryId) -> HuggingFaceRegistry | None:
        """Load one registry."""
        row = await _one(info, key, ArtifactRegistryType.HUGGINGFACE)
        return HuggingFaceRegistry(row=row) if row else None

    @listed("The registries of the type HUGGINGFACE, by name. For administrators.", default=None)
    async def huggingface_registries(
        self,
        info: Info,
        request: PageRequest,
    ) -> Connection[HuggingFaceRegistry] | None:
        """Load one page of the registries."""
        await require_admin(info.context.caller)
        statement = _registries(ArtifactRegistryType.HUGGINGFACE)
        return await connect(info, statement, _ORDER, request, lambda row: HuggingFaceRegistry(row=row[0]))

    @field("A registry of the type RESERVOIR; null if there is none. For administrators.")
    async def reservoir_registry(self, info: Info, key: RegistryId) -> ReservoirRegistry | None:
        """Load one registry."""
        row = await _one(info, key, ArtifactRegistryType.RESERVOIR)
        return ReservoirRegistry(row=row) if row else None

    @listed("The registries of the type RESERVOIR, by name. For administrators.", default=None)
    async def reservoir_registries(
        self,
        info: Info,
        request: PageRequest,
    ) -> Connection[ReservoirRegistry] | None:
        """Load one page of the registries."""
        await require_admin(info.context.caller)
        statement = _registries(ArtifactRegistryType.RESERVOIR)
        return await connect(info, statement, _ORDER, request, lambda row: ReservoirRegistry(row=row[0]))

    @field("The registry of scans that name none; null for a type that no registry has.")
    async def default_artifact_registry(
        self,
        info: Info,
        artifact_type: Annotated[ArtifactType, strawberry.argument(description="What it is to offer.")],
    ) -> ArtifactRegistry | None:
        """Load the default registry."""
        row = await info.context.services.registries.default(artifact_type)
        return ArtifactRegistry(row=row) if row else None


@strawberry.type
class RegistryMutation:
    """The mutations of registries."""

    @mutation(
        "Enter a registry of the type HUGGINGFACE: its models can be scanned and imported at once. "
        "For administrators."
    )
    async def create_huggingface_registry(
        self,
        info: Info,
        asked: Annotated[
            CreateHuggingFaceRegistryInput, strawberry.argument(name="input", description="The registry.")
        ],
    ) -> CreateHuggingFaceRegistryPayload | None:
        """Create a registry."""
        row = await info.context.services.registries.create(
            info.context.caller,
            ArtifactRegistryType.HUGGINGFACE,
            RegistryChanges(name=asked.name, url=asked.url, secrets=_token(asked.token)),
        )
        return CreateHuggingFaceRegistryPayload(huggingface_registry=HuggingFaceRegistry(row=row))

    @mutation("Change a registry; one of the configuration file is changed there. For administrators.")
    async def update_huggingface_registry(
        self,
        info: Info,
        asked: Annotated[
            UpdateHuggingFaceRegistryInput, strawberry.argument(name="input", description="What to change.")
        ],
    ) -> UpdateHuggingFaceRegistryPayload | None:
        """Update a registry."""
        token = {} if asked.token is strawberry.UNSET else {"token": asked.token or ""}
        row = await info.context.services.registries.update(
            info.context.caller,
            ArtifactRegistryType.HUGGINGFACE,
            parse_id(asked.id, "HuggingFaceRegistry", "ArtifactRegistry", field="input.id"),
            RegistryChanges(name=given(asked.name), url=given(asked.url), secrets=token),
        )
        return UpdateHuggingFaceRegistryPayload(huggingface_registry=HuggingFaceRegistry(row=row))

    @mutation("Delete a registry that nothing needs any more. For administrators.")
    async def delete_huggingface_registry(
        self,
        info: Info,
        asked: Annotated[
            DeleteHuggingFaceRegistryInput, strawberry.argument(name="input", description="Which registry.")
        ],
    ) -> DeleteHuggingFaceRegistryPayload | None:
        """Delete a registry."""
        key = parse_id(asked.id, "HuggingFaceRegistry", "ArtifactRegistry", field="input.id")
        kind = ArtifactRegistryType.HUGGINGFACE
        gone = await info.context.services.registries.delete(info.context.caller, kind, key)
        return DeleteHuggingFaceRegistryPayload(id=gone)

    @mutation("Enter a registry of the type RESERVOIR. For administrators.")
    async def create_reservoir_registry(
        self,
        info: Info,
        asked: Annotated[
            CreateReservoirRegistryInput, strawberry.argument(name="input", description="The registry.")
        ],
    ) -> CreateReservoirRegistryPayload | None:
        """Create a registry."""
        row = await info.context.services.registries.create(
            info.context.caller,
            ArtifactRegistryType.RESERVOIR,
            RegistryChanges(
                name=asked.name,
                url=asked.endpoint,
                api_version=asked.api_version,
                secrets={"access_key": asked.access_key, "secret_key": asked.secret_key},
            ),
        )
        return CreateReservoirRegistryPayload(reservoir=ReservoirRegistry(row=row))

    @mutation("Change a registry; one of the configuration file is changed there. For administrators.")
    async def update_reservoir_registry(
        self,
        info: Info,
        asked: Annotated[
            UpdateReservoirRegistryInput, strawberry.argument(name="input", description="What to change.")
        ],
    ) -> UpdateReservoirRegistryPayload | None:
        """Update a registry."""
        keys = {"access_key": given(asked.access_key), "secret_key": given(asked.secret_key)}
        row = await info.context.services.registries.update(
            info.context.caller,
            ArtifactRegistryType.RESERVOIR,
            parse_id(asked.id, "ReservoirRegistry", "ArtifactRegistry", field="input.id"),
            RegistryChanges(
                name=given(asked.name),
                url=given(asked.endpoint),
                api_version=given(asked.api_version),
                secrets={name: value for name, value in keys.items() if value is not None},
            ),
        )
        return UpdateReservoirRegistryPayload(reservoir=ReservoirRegistry(row=row))

    @mutation("Delete a registry that nothing needs any more. For administrators.")
    async def delete_reservoir_registry(
        self,
        info: Info,
        asked: Annotated[
            DeleteReservoirRegistryInput, strawberry.argument(name="input", description="Which registry.")
        ],
    ) -> DeleteReservoirRegistryPayload | None:
        """Delete a registry."""
        key = parse_id(asked.id, "ReservoirRegistry", "ArtifactRegistry", field="input.id")
        kind = ArtifactRegistryType.RESERVOIR
        gone = await info.context.services.registries.delete(info.context.caller, kind, key)
        return DeleteReservoirRegistryPayload(id=gone)


_ORDER = Order.by([SortKey("name", models.ArtifactRegistry.name)], models.ArtifactRegistry.id)


def _registries(kind: ArtifactRegistryType) -> Select[models.ArtifactRegistry]:
    registry = models.ArtifactRegistry
    return select(registry).where(registry.type == kind, registry.deleted_at.is_(None))


async def _one(info: Info, key: strawberry.ID, kind: ArtifactRegistryType) -> models.ArtifactRegistry | None:
    await require_admin(info.context.caller)
    row = await info.context.loaders.registries.load(
        parse_id(key, NODE_OF[kind], "ArtifactRegistry", field="id")
    )
    return row if row is not None and row.type is kind and row.deleted_at is None else None


def _token(token: str | None) -> dict[str, str]:
    return {"token": token} if token else {}
