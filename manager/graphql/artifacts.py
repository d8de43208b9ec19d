"""What can be asked of the catalog and done with it: scans, imports, and their cancel."""

from typing import Annotated
from uuid import UUID

import strawberry

from manager.graphql.catalog import (
    Artifact,
    ArtifactFilterArgument,
    ArtifactOrderArgument,
    ArtifactRevision,
    RevisionFilterArgument,
    RevisionOrderArgument,
    artifact_connection,
    revision_connection,
    revisions_as_connection,
)
from manager.graphql.connections import (
    Connection,
    listed,
)
from manager.graphql.context import Info
from manager.graphql.enums import ArtifactType, ImportConflictPolicy
from manager.graphql.fields import field, mutation
from manager.graphql.ids import parse_id, parse_ids
from manager.graphql.registries import REGISTRY_TYPES
from manager.graphql.tasks import ImportTask
from manager.import_options import ImportOptions
from manager.imports import ImportedRevision
from manager.paging import PageRequest


@strawberry.input(description="How to import.")
class ImportArtifactsOptions:
    """How to import."""

    force: bool = strawberry.field(
        default=False, description="Import also what the artifact storage holds already."
    )
    path: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The directory in the folder; `{name}/{version}` without it, `/` is the folder's root. "
        "Only with `vfolderId` and a single revision.",
    )
    on_conflict: ImportConflictPolicy = strawberry.field(
        default=ImportConflictPolicy.FAIL,
        description="What to do with a file of somebody else in the way. Only with `vfolderId`.",
    )
    storage: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The artifact storage, as PROXY:STORAGE or PROXY:STORAGE.NAMESPACE; the configured one without it. "
        "Only without `vfolderId`.",
    )


@strawberry.input(description="What to import, and where to.")
class ImportArtifactsInput:
    """What to import, and where to."""

    artifact_revision_ids: list[strawberry.ID] = strawberry.field(
        description="The revisions, at least one, each once."
    )
    vfolder_id: strawberry.ID | None = strawberry.field(
        default=None, description="The folder that receives the files; without it the artifact storage does."
    )
    options: ImportArtifactsOptions | None = strawberry.field(default=None, description="How to import.")


@strawberry.type(description="A revision that was asked for, and its import.")
class ArtifactRevisionImportTask:
    """A revision that was asked for, and its import."""

    task_id: strawberry.ID | None = strawberry.field(
        description="The task's plain UUID; null where nothing had to be done."
    )
    artifact_revision: ArtifactRevision = strawberry.field(description="The revision.")
    task: ImportTask | None = strawberry.field(description="The task; null where nothing had to be done.")

    @classmethod
    def of(cls, imported: ImportedRevision) -> "ArtifactRevisionImportTask":
        """Present one outcome."""
        task = imported.task
        return cls(
            task_id=None if task is None else strawberry.ID(str(task.id)),
            artifact_revision=ArtifactRevision(row=imported.revision),
            task=None if task is None else ImportTask(row=task),
        )


@strawberry.type(description="What was asked for, in its order.")
class ImportArtifactsPayload:
    """What was asked for, in its order."""

    artifact_revisions: Connection[ArtifactRevision] = strawberry.field(
        description="All revisions asked for."
    )
    tasks: list[ArtifactRevisionImportTask] = strawberry.field(description="One entry for each revision.")


@strawberry.input(description="Which artifacts to look for.")
class ScanArtifactsInput:
    """Which artifacts to look for."""

    registry_id: strawberry.ID | None = strawberry.field(
        default=None, description="The registry; the default one without it."
    )
    limit: int = strawberry.field(description="As many artifacts at most.")
    artifact_type: ArtifactType | None = strawberry.field(
        default=None, description="Only this type; a registry of models has MODEL alone."
    )
    search: str | None = strawberry.field(default=None, description="What the registry is to search for.")


@strawberry.type(description="What the scan found.")
class ScanArtifactsPayload:
    """What the scan found."""

    artifacts: list[Artifact] = strawberry.field(description="The artifacts, as the registry ordered them.")


@strawberry.input(description="A model of a registry.")
class ModelTarget:
    """A model of a registry."""

    model_id: str = strawberry.field(description="The model's name, `org/name`.")
    revision: str | None = strawberry.field(
        default=None, description="A branch, tag or commit; all branches and tags without it."
    )


@strawberry.input(description="Which models to scan.")
class ScanArtifactModelsInput:
    """Which models to scan."""

    models: list[ModelTarget] = strawberry.field(description="The models, at least one.")
    registry_id: UUID | None = strawberry.field(
        default=None, description="The registry; the default one without it."
    )


@strawberry.type(description="What the scan found.")
class ScanArtifactModelsPayload:
    """What the scan found."""

    artifact_revision: Connection[ArtifactRevision] = strawberry.field(
        description="Exactly the revisions scanned, in the order asked for."
    )


@strawberry.input(description="Which revision's import.")
class CancelArtifactInput:
    """Which revision's import."""

    artifact_revision_id: strawberry.ID = strawberry.field(description="The revision's id.")


@strawberry.type(description="The revision whose import was asked to stop.")
class CancelImportArtifactPayload:
    """The revision whose import was asked to stop."""

    artifact_revision: ArtifactRevision = strawberry.field(description="The revision.")


@strawberry.type
class ArtifactQuery:
    """The queries about the catalog."""

    @field("An artifact; null if there is none.")
    async def artifact(
        self,
        info: Info,
        key: Annotated[strawberry.ID, strawberry.argument(name="id", description="The artifact's id.")],
    ) -> Artifact | None:
        """Load one artifact."""
        row = await info.context.loaders.artifacts.load(parse_id(key, "Artifact", field="id"))
        return Artifact(row=row) if row else None

    @listed("The artifacts of all registries.", default=None)
    async def artifacts(
        self,
        info: Info,
        request: PageRequest,
        *,
        wanted: ArtifactFilterArgument = None,
        order_by: ArtifactOrderArgument = None,
    ) -> Connection[Artifact] | None:
        """Load one page of the artifacts."""
        return await artifact_connection(info, wanted, order_by, request)

    @field("A revision; null if there is none.")
    async def artifact_revision(
        self,
        info: Info,
        key: Annotated[strawberry.ID, strawberry.argument(name="id", description="The revision's id.")],
    ) -> ArtifactRevision | None:
        """Load one revision."""
        row = await info.context.loaders.revisions.load(parse_id(key, "ArtifactRevision", field="id"))
        return ArtifactRevision(row=row) if row else None

    @listed("The revisions of all artifacts.", default=None)
    async def artifact_revisions(
        self,
        info: Info,
        request: PageRequest,
        *,
        wanted: RevisionFilterArgument = None,
        order_by: RevisionOrderArgument = None,
    ) -> Connection[ArtifactRevision] | None:
        """Load one page of the revisions."""
        return await revision_connection(info, wanted, order_by, request)


@strawberry.type
class ArtifactMutation:
    """The mutations of the catalog."""

    @mutation(
        "Bring revisions into the artifact storage, or into a folder. Answers at once; follow the tasks."
    )
    async def import_artifacts(
        self,
        info: Info,
        asked: Annotated[
            ImportArtifactsInput,
            strawberry.argument(name="input", description="What to import, and where to."),
        ],
    ) -> ImportArtifactsPayload | None:
        """Order the imports; refused as a whole, or accepted as a whole."""
        context = info.context
        revision_ids = parse_ids(
            asked.artifact_revision_ids, "ArtifactRevision", field="input.artifactRevisionIds"
        )
        vfolder_id = (
            None
            if asked.vfolder_id is None
            else parse_id(asked.vfolder_id, "VFolder", field="input.vfolderId")
        )
        imported = await context.services.imports.import_revisions(
            context.caller, revision_ids, vfolder_id, _options(asked.options)
        )
        return ImportArtifactsPayload(
            artifact_revisions=revisions_as_connection([each.revision for each in imported]),
            tasks=[ArtifactRevisionImportTask.of(each) for each in imported],
        )

    @mutation("Search a registry and record the models found. For administrators.")
    async def scan_artifacts(
        self,
        info: Info,
        asked: Annotated[ScanArtifactsInput, strawberry.argument(name="input", description="What to scan.")],
    ) -> ScanArtifactsPayload | None:
        """Search a registry."""
        context = info.context
        registry_id = (
            None
            if asked.registry_id is None
            else parse_id(asked.registry_id, *REGISTRY_TYPES, field="input.registryId")
        )
        rows = await context.services.catalog.scan_artifacts(
            context.caller,
            registry_id=registry_id,
            limit=asked.limit,
            artifact_type=asked.artifact_type,
            search=asked.search,
        )
        return ScanArtifactsPayload(artifacts=[Artifact(row=row) for row in rows])

    @mutation("Record models of a registry with commit, size and readme. For administrators.")
    async def scan_artifact_models(
        self,
        info: Info,
        asked: Annotated[
            ScanArtifactModelsInput, strawberry.argument(name="input", description="What to scan.")
        ],
    ) -> ScanArtifactModelsPayload | None:
        """Scan the models named."""
        context = info.context
        rows = await context.services.catalog.scan_models(
            context.caller,
            [(target.model_id, target.revision) for target in asked.models],
            asked.registry_id,
        )
        return ScanArtifactModelsPayload(artifact_revision=revisions_as_connection(rows))

    @mutation("Stop the import of a revision into the artifact storage.")
    async def cancel_import_artifact(
        self,
        info: Info,
        asked: Annotated[CancelArtifactInput, strawberry.argument(name="input", description="Which import.")],
    ) -> CancelImportArtifactPayload | None:
        """Cancel the artifact storage's task of the revision; folders' tasks are left alone."""
        context = info.context
        revision_id = parse_id(
            asked.artifact_revision_id, "ArtifactRevision", field="input.artifactRevisionId"
        )
        row = await context.services.imports.cancel_revision_import(context.caller, revision_id)
        return CancelImportArtifactPayload(artifact_revision=ArtifactRevision(row=row))


def _options(options: ImportArtifactsOptions | None) -> ImportOptions:
    if options is None:
        return ImportOptions()
    return ImportOptions(
        force=options.force,
        path=None if options.path is strawberry.UNSET else options.path,
        on_conflict=options.on_conflict,
        storage=None if options.storage is strawberry.UNSET else options.storage,
    )
