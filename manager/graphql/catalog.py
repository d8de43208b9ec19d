"""Artifacts and their revisions: types, filters, orders and the lists of them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import strawberry
from sqlalchemy import BigInteger, ColumnElement, cast, exists, func, select
from strawberry.scalars import JSON

from manager import models
from manager.graphql.connections import (
    Connection,
    connect,
    connection,
    listed,
    whole_list,
)
from manager.graphql.context import Info
from manager.graphql.enums import (
    ArtifactAvailability,
    ArtifactOrderField,
    ArtifactRemoteStatus,
    ArtifactRevisionOrderField,
    ArtifactStatus,
    ArtifactType,
    OrderDirection,
)
from manager.graphql.fields import Node, column, field
from manager.graphql.filters import (
    IntFilter,
    StringFilter,
    UUIDFilter,
    choice_conditions,
    conditions_of,
    number_conditions,
    string_conditions,
    uuid_conditions,
)
from manager.graphql.loaders import NestedList
from manager.graphql.scalars import ByteSize
from manager.graphql.verification import ArtifactVerificationResult, verification_result
from manager.paging import Order, PageRequest, SortKey


@strawberry.input(description="Which artifacts; all conditions that are given must hold.")
class ArtifactFilter:
    """Which artifacts; all conditions that are given must hold."""

    type: list[ArtifactType] | None = strawberry.field(default=None, description="Of one of these types.")
    name: StringFilter | None = strawberry.field(default=None, description="By name, `org/name`.")
    registry: StringFilter | None = strawberry.field(default=None, description="By the registry's name.")
    source: StringFilter | None = strawberry.field(
        default=None, description="By the name of the registry that the artifact came from."
    )
    availability: list[ArtifactAvailability] | None = strawberry.field(
        default=None, description="With one of these availabilities."
    )
    revision_status: list[ArtifactStatus] | None = strawberry.field(
        default=None,
        description="With a revision that stands at one of these in the shared artifact storage.",
    )
    AND: list["ArtifactFilter"] | None = strawberry.field(
        name="AND", default=None, description="All of these hold too."
    )
    OR: list["ArtifactFilter"] | None = strawberry.field(
        name="OR", default=None, description="At least one of these holds too."
    )
    NOT: list["ArtifactFilter"] | None = strawberry.field(
        name="NOT", default=None, description="None of these holds."
    )

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        """Express the filter's own conditions."""
        yield from choice_conditions(models.Artifact.type, self.type)
        yield from string_conditions(models.Artifact.name, self.name)
        yield from string_conditions(models.ArtifactRegistry.name, self.registry)
        yield from string_conditions(models.ArtifactRegistry.name, self.source)
        yield from choice_conditions(models.Artifact.availability, self.availability)
        if self.revision_status is not None:
            revision = models.ArtifactRevision
            yield (
                exists()
                .where(
                    revision.artifact_id == models.Artifact.id,
                    *choice_conditions(revision.status, self.revision_status),
                )
                .correlate(models.Artifact)
            )


@strawberry.input(description="By what artifacts are ordered.")
class ArtifactOrderBy:
    """By what artifacts are ordered."""

    field: ArtifactOrderField = strawberry.field(description="The value compared.")
    direction: OrderDirection = strawberry.field(
        default=OrderDirection.ASC, description="Which end comes first."
    )


@strawberry.input(description="Which statuses of a revision.")
class ArtifactRevisionStatusFilter:
    """Which statuses of a revision."""

    in_: list[ArtifactStatus] | None = strawberry.field(name="in", default=None, description="One of these.")
    equals: ArtifactStatus | None = strawberry.field(default=None, description="This one.")


@strawberry.input(description="Which statuses at a RESERVOIR registry.")
class ArtifactRevisionRemoteStatusFilter:
    """Which statuses at a RESERVOIR registry."""

    in_: list[ArtifactRemoteStatus] | None = strawberry.field(
        name="in", default=None, description="One of these."
    )
    equals: ArtifactRemoteStatus | None = strawberry.field(default=None, description="This one.")


@strawberry.input(description="Which revisions; all conditions that are given must hold.")
class ArtifactRevisionFilter:
    """Which revisions; all conditions that are given must hold."""

    status: ArtifactRevisionStatusFilter | None = strawberry.field(
        default=None, description="By status in the shared artifact storage."
    )
    remote_status: ArtifactRevisionRemoteStatusFilter | None = strawberry.field(
        default=None, description="By status at a RESERVOIR registry."
    )
    version: StringFilter | None = strawberry.field(default=None, description="By branch, tag or commit.")
    artifact_id: UUIDFilter | None = strawberry.field(default=None, description="By the artifact's id.")
    size: IntFilter | None = strawberry.field(default=None, description="By size in bytes.")
    AND: list["ArtifactRevisionFilter"] | None = strawberry.field(
        name="AND", default=None, description="All of these hold too."
    )
    OR: list["ArtifactRevisionFilter"] | None = strawberry.field(
        name="OR", default=None, description="At least one of these holds too."
    )
    NOT: list["ArtifactRevisionFilter"] | None = strawberry.field(
        name="NOT", default=None, description="None of these holds."
    )

    def conditions(self) -> Iterable[ColumnElement[bool]]:
        """Express the filter's own conditions."""
        revision = models.ArtifactRevision
        for stored, wanted in ((revision.status, self.status), (revision.remote_status, self.remote_status)):
            if wanted is not None:
                yield from choice_conditions(stored, wanted.in_)
                yield from choice_conditions(stored, None if wanted.equals is None else [wanted.equals])
        yield from string_conditions(revision.version, self.version)
        yield from uuid_conditions(revision.artifact_id, self.artifact_id)
        yield from number_conditions(revision.size, self.size)


@strawberry.input(description="By what revisions are ordered.")
class ArtifactRevisionOrderBy:
    """By what revisions are ordered."""

    field: ArtifactRevisionOrderField = strawberry.field(description="The value compared.")
    direction: OrderDirection = strawberry.field(
        default=OrderDirection.ASC, description="Which end comes first."
    )


ArtifactFilterArgument = Annotated[
    ArtifactFilter | None, strawberry.argument(name="filter", description="Only artifacts that pass.")
]
ArtifactOrderArgument = Annotated[
    list[ArtifactOrderBy] | None,
    strawberry.argument(description="The order; by name without it. Later entries decide between equals."),
]
RevisionFilterArgument = Annotated[
    ArtifactRevisionFilter | None, strawberry.argument(name="filter", description="Only revisions that pass.")
]
RevisionOrderArgument = Annotated[
    list[ArtifactRevisionOrderBy] | None,
    strawberry.argument(
        description="The order; the oldest first without it. Later entries decide between equals."
    ),
]


@strawberry.type(description="A registry, as the place that an artifact comes from.")
class SourceInfo:
    """A registry, as the place that an artifact comes from."""

    name: str | None = strawberry.field(description="The registry's name.")
    url: str | None = strawberry.field(description="The registry's endpoint.")


@strawberry.type(description="One version of an artifact.")
class ArtifactRevision(Node):
    """One version of an artifact; holds its row."""

    row: strawberry.Private[models.ArtifactRevision]

    status: ArtifactStatus = column(
        "status", "Where it stands in the shared artifact storage; imports into folders leave it alone."
    )
    remote_status: ArtifactRemoteStatus | None = column(
        "remote_status", "Its status at a RESERVOIR registry."
    )
    version: str = column("version", "The branch, tag or commit.")
    readme: str | None = column("readme", "The text of its README.md.")
    size: ByteSize | None = column("size", "The size of all files together; null while it is not known.")
    created_at: datetime | None = column("created_at", "When a scan first saw it.")
    updated_at: datetime | None = column("updated_at", "When a scan or an import last changed it.")
    digest: str | None = column("digest", "The commit that the last scan or import saw.")

    @field(
        "What the verifiers said of the copy in the artifact storage, or of the last one that was to go there."
    )
    def verification_result(self) -> ArtifactVerificationResult | None:
        """Present the stored report."""
        return verification_result(self.row.verification)

    @field("The artifact that it is a version of.")
    async def artifact(self, info: Info) -> "Artifact | None":
        """Load the artifact."""
        row = await info.context.loaders.artifacts.load(self.row.artifact_id)
        return Artifact(row=row) if row else None


@strawberry.type(description="A model of a registry.")
class Artifact(Node):
    """A model of a registry; holds its row."""

    row: strawberry.Private[models.Artifact]

    name: str = column("name", "Its name in the registry, `org/name`.")
    type: ArtifactType = column("type", "What it is.")
    description: str | None = column("description", "What its registry says about it.")
    readonly: bool = column("readonly", "Whether its files must not be changed once they are stored.")
    extra: JSON | None = column("extra", "What else its registry says: tags, likes, downloads.")
    scanned_at: datetime = column("scanned_at", "When it was last scanned.")
    updated_at: datetime = column("updated_at", "When its description last changed.")
    availability: ArtifactAvailability = column("availability", "Whether it was deleted.")

    @field("The registry that it was scanned from.")
    async def registry(self, info: Info) -> SourceInfo:
        """Load the registry."""
        row = await info.context.loaders.registries.load(self.row.registry_id)
        return SourceInfo(name=row.name if row else None, url=row.url if row else None)

    @field("The registry that it came from in the first place.")
    async def source(self, info: Info) -> SourceInfo:
        """Load the registry; until a registry says otherwise, it is the source itself."""
        row = await info.context.loaders.registries.load(self.row.registry_id)
        return SourceInfo(name=row.name if row else None, url=row.url if row else None)

    @listed("Its revisions; the oldest first unless `orderBy` says otherwise.", default=None)
    async def revisions(
        self,
        info: Info,
        request: PageRequest,
        *,
        wanted: RevisionFilterArgument = None,
        order_by: RevisionOrderArgument = None,
    ) -> Connection[ArtifactRevision] | None:
        """Load this page of every artifact in the answer at once."""
        loaders = info.context.loaders
        nested = loaders.nested(
            (repr(wanted), repr(order_by), request),
            lambda: NestedList(
                select(models.ArtifactRevision).where(*conditions_of(wanted)),
                revision_order(order_by),
                request,
                models.ArtifactRevision.artifact_id,
            ),
        )
        page = await loaders.pages(nested).load(self.row.id)
        return connection(
            page, lambda row: ArtifactRevision(row=row[0]), lambda: loaders.counts(nested).load(self.row.id)
        )


def artifact_order(order_by: Sequence[ArtifactOrderBy] | None) -> Order:
    """Express the order of artifacts."""
    artifact = models.Artifact
    size = (
        select(cast(func.coalesce(func.sum(models.ArtifactRevision.size), 0), BigInteger))
        .where(models.ArtifactRevision.artifact_id == artifact.id)
        .correlate(artifact)
        .scalar_subquery()
    )
    expressions: dict[ArtifactOrderField, ColumnElement[Any] | Any] = {
        ArtifactOrderField.NAME: artifact.name,
        ArtifactOrderField.TYPE: artifact.type,
        ArtifactOrderField.SIZE: size,
        ArtifactOrderField.SCANNED_AT: artifact.scanned_at,
        ArtifactOrderField.UPDATED_AT: artifact.updated_at,
    }
    wanted = order_by or [ArtifactOrderBy(field=ArtifactOrderField.NAME)]
    return Order.by((_sort_key(each, expressions[each.field]) for each in wanted), artifact.id)


def revision_order(order_by: Sequence[ArtifactRevisionOrderBy] | None) -> Order:
    """Express the order of revisions."""
    revision = models.ArtifactRevision
    expressions: dict[ArtifactRevisionOrderField, ColumnElement[Any] | Any] = {
        ArtifactRevisionOrderField.VERSION: revision.version,
        ArtifactRevisionOrderField.SIZE: revision.size,
        ArtifactRevisionOrderField.CREATED_AT: revision.created_at,
        ArtifactRevisionOrderField.UPDATED_AT: revision.updated_at,
        ArtifactRevisionOrderField.STATUS: revision.status,
    }
    wanted = order_by or [ArtifactRevisionOrderBy(field=ArtifactRevisionOrderField.CREATED_AT)]
    return Order.by(
        (
            _sort_key(each, expressions[each.field], nullable=each.field is ArtifactRevisionOrderField.SIZE)
            for each in wanted
        ),
        revision.id,
    )


def _sort_key(
    wanted: ArtifactOrderBy | ArtifactRevisionOrderBy, expression: Any, *, nullable: bool = False
) -> SortKey:
    return SortKey(
        wanted.field.value,
        expression,
        descending=wanted.direction is OrderDirection.DESC,
        nullable=nullable,
    )


async def artifact_connection(
    info: Info,
    wanted: ArtifactFilter | None,
    order_by: Sequence[ArtifactOrderBy] | None,
    request: PageRequest,
) -> Connection[Artifact]:
    """Load one page of the artifacts."""
    statement = select(models.Artifact).join(models.Artifact.origin).where(*conditions_of(wanted))
    return await connect(info, statement, artifact_order(order_by), request, lambda row: Artifact(row=row[0]))


async def revision_connection(
    info: Info,
    wanted: ArtifactRevisionFilter | None,
    order_by: Sequence[ArtifactRevisionOrderBy] | None,
    request: PageRequest,
) -> Connection[ArtifactRevision]:
    """Load one page of the revisions of all artifacts."""
    statement = select(models.ArtifactRevision).where(*conditions_of(wanted))
    return await connect(
        info, statement, revision_order(order_by), request, lambda row: ArtifactRevision(row=row[0])
    )


def revisions_as_connection(rows: Sequence[models.ArtifactRevision]) -> Connection[ArtifactRevision]:
    """Present exactly these revisions, in this order."""
    order = revision_order(None)
    return whole_list(
        [ArtifactRevision(row=row) for row in rows],
        [order.cursor([row.created_at, row.id]) for row in rows],
    )
