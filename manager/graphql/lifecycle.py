"""What administrators do with artifacts beyond scanning and importing them, and URLs for their files."""

import json
from typing import Annotated

import strawberry

from manager.access import require_admin
from manager.graphql.artifacts import ArtifactRevisionImportTask, ImportArtifactsOptions
from manager.graphql.catalog import Artifact, ArtifactRevision, revisions_as_connection
from manager.graphql.connections import Connection
from manager.graphql.context import Info
from manager.graphql.enums import ArtifactType
from manager.graphql.fields import given, mutation
from manager.graphql.ids import parse_id, parse_ids
from manager.models import ApprovalDecision
from proxy_client.errors import UnsupportedRegistry


@strawberry.input(description="What to change; what is left out stays.")
class UpdateArtifactInput:
    """What to change; what is left out stays."""

    artifact_id: strawberry.ID = strawberry.field(description="The artifact's id.")
    readonly: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether getPresignedUploadUrl is refused for its revisions."
    )
    description: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="A description that scans leave alone; an empty one takes the registry's at the next scan.",
    )


@strawberry.type(description="The artifact as it is now.")
class UpdateArtifactPayload:
    """The artifact as it is now."""

    artifact: Artifact = strawberry.field(description="The artifact.")


@strawberry.input(description="Which artifacts.")
class DeleteArtifactsInput:
    """Which artifacts."""

    artifact_ids: list[strawberry.ID] = strawberry.field(description="The artifacts' ids, 1 to 100.")


@strawberry.type(description="The artifacts that are DELETED now.")
class DeleteArtifactsPayload:
    """The artifacts that are DELETED now."""

    artifacts: list[Artifact] = strawberry.field(description="The artifacts, in the order asked for.")


@strawberry.input(description="Which artifacts.")
class RestoreArtifactsInput:
    """Which artifacts."""

    artifact_ids: list[strawberry.ID] = strawberry.field(description="The artifacts' ids, 1 to 100.")


@strawberry.type(description="The artifacts that are ALIVE again.")
class RestoreArtifactsPayload:
    """The artifacts that are ALIVE again."""

    artifacts: list[Artifact] = strawberry.field(description="The artifacts, in the order asked for.")


@strawberry.input(description="Which revisions.")
class CleanupArtifactRevisionsInput:
    """Which revisions."""

    artifact_revision_ids: list[strawberry.ID] = strawberry.field(description="The revisions' ids, 1 to 100.")


@strawberry.type(description="The revisions that the artifact storage holds no more.")
class CleanupArtifactRevisionsPayload:
    """The revisions that the artifact storage holds no more."""

    artifact_revisions: Connection[ArtifactRevision] = strawberry.field(
        description="The revisions, in the order asked for."
    )


@strawberry.input(description="Which revision.")
class ApproveArtifactInput:
    """Which revision."""

    artifact_revision_id: strawberry.ID = strawberry.field(
        description="The revision's id; it NEEDS_APPROVAL."
    )


@strawberry.type(description="The revision that may be published.")
class ApproveArtifactPayload:
    """The revision that may be published."""

    artifact_revision: ArtifactRevision = strawberry.field(
        description="The revision; it becomes AVAILABLE when its import has published it."
    )


@strawberry.input(description="Which revision.")
class RejectArtifactInput:
    """Which revision."""

    artifact_revision_id: strawberry.ID = strawberry.field(
        description="The revision's id; it NEEDS_APPROVAL."
    )


@strawberry.type(description="The revision that is not published.")
class RejectArtifactPayload:
    """The revision that is not published."""

    artifact_revision: ArtifactRevision = strawberry.field(
        description="The revision; it becomes REJECTED, or stays AVAILABLE with the copy from before."
    )


@strawberry.input(name="GetPresignedDownloadURLInput", description="Which file of which revision.")
class GetPresignedDownloadURLInput:
    """Which file of which revision."""

    artifact_revision_id: strawberry.ID = strawberry.field(description="The revision's id; it is AVAILABLE.")
    key: str = strawberry.field(description="The file's path in the revision, such as config.json.")
    expiration: int | None = strawberry.field(
        default=None, description="Seconds for which the URL works; 3600 without it, 604800 at most."
    )


@strawberry.type(name="GetPresignedDownloadURLPayload", description="A URL that reads the file.")
class GetPresignedDownloadURLPayload:
    """A URL that reads the file."""

    presigned_url: str = strawberry.field(description="The URL, for GET.")


@strawberry.input(name="GetPresignedUploadURLInput", description="Which file of which revision.")
class GetPresignedUploadURLInput:
    """Which file of which revision."""

    artifact_revision_id: strawberry.ID = strawberry.field(description="The revision's id; it is AVAILABLE.")
    key: str = strawberry.field(description="The file's path in the revision, such as notes/readme.md.")


@strawberry.type(name="GetPresignedUploadURLPayload", description="A URL that writes the file.")
class GetPresignedUploadURLPayload:
    """A URL that writes the file."""

    presigned_url: str = strawberry.field(description="The URL, for PUT; it works for an hour.")
    fields: str = strawberry.field(
        description="The headers that the request has to carry, as a JSON object of strings."
    )


@strawberry.input(description="Which Stowage is to do it, and from which of its registries.")
class DelegateeTarget:
    """Which Stowage is to do it, and from which of its registries."""

    delegatee_reservoir_id: strawberry.ID = strawberry.field(description="The id of the other Stowage.")
    target_registry_id: strawberry.ID = strawberry.field(description="The id of a registry there.")


@strawberry.input(description="What another Stowage is to scan.")
class DelegateScanArtifactsInput:
    """What another Stowage is to scan."""

    delegator_reservoir_id: strawberry.ID | None = strawberry.field(
        default=None, description="The RESERVOIR registry that is asked."
    )
    delegatee_target: DelegateeTarget | None = strawberry.field(
        default=None, description="The Stowage behind it, where it passes the request on."
    )
    limit: int = strawberry.field(description="As many artifacts at most.")
    artifact_type: ArtifactType | None = strawberry.field(default=None, description="Only this type.")
    search: str | None = strawberry.field(default=None, description="What the registry is to search for.")


@strawberry.type(description="What the other Stowage found.")
class DelegateScanArtifactsPayload:
    """What the other Stowage found."""

    artifacts: list[Artifact] = strawberry.field(description="The artifacts.")


@strawberry.input(description="What another Stowage is to import.")
class DelegateImportArtifactsInput:
    """What another Stowage is to import."""

    artifact_revision_ids: list[strawberry.ID] = strawberry.field(description="The revisions.")
    delegator_reservoir_id: strawberry.ID | None = strawberry.field(
        default=None, description="The RESERVOIR registry that is asked."
    )
    artifact_type: ArtifactType | None = strawberry.field(default=None, description="Only this type.")
    delegatee_target: DelegateeTarget | None = strawberry.field(
        default=None, description="The Stowage behind it, where it passes the request on."
    )
    options: ImportArtifactsOptions | None = strawberry.field(default=None, description="How to import.")


@strawberry.type(description="What the other Stowage imports.")
class DelegateImportArtifactsPayload:
    """What the other Stowage imports."""

    artifact_revisions: Connection[ArtifactRevision] = strawberry.field(description="The revisions.")
    tasks: list[ArtifactRevisionImportTask] = strawberry.field(description="One entry for each revision.")


@strawberry.type
class LifecycleMutation:
    """The mutations that administrators keep the catalogue in order with."""

    @mutation("Change an artifact's description, or whether it is read-only. For administrators.")
    async def update_artifact(
        self,
        info: Info,
        asked: Annotated[
            UpdateArtifactInput, strawberry.argument(name="input", description="What to change.")
        ],
    ) -> UpdateArtifactPayload | None:
        """Update an artifact."""
        row = await info.context.services.catalog.update_artifact(
            info.context.caller,
            parse_id(asked.artifact_id, "Artifact", field="input.artifactId"),
            readonly=given(asked.readonly),
            description=given(asked.description),
        )
        return UpdateArtifactPayload(artifact=Artifact(row=row))

    @mutation(
        "Take artifacts out of use: they stay in the catalogue as DELETED and are not imported. For administrators."
    )
    async def delete_artifacts(
        self,
        info: Info,
        asked: Annotated[
            DeleteArtifactsInput, strawberry.argument(name="input", description="Which artifacts.")
        ],
    ) -> DeleteArtifactsPayload | None:
        """Delete artifacts."""
        ids = parse_ids(asked.artifact_ids, "Artifact", field="input.artifactIds")
        rows = await info.context.services.catalog.delete_artifacts(info.context.caller, ids)
        return DeleteArtifactsPayload(artifacts=[Artifact(row=row) for row in rows])

    @mutation("Take deleted artifacts into use again. For administrators.")
    async def restore_artifacts(
        self,
        info: Info,
        asked: Annotated[
            RestoreArtifactsInput, strawberry.argument(name="input", description="Which artifacts.")
        ],
    ) -> RestoreArtifactsPayload | None:
        """Restore artifacts."""
        ids = parse_ids(asked.artifact_ids, "Artifact", field="input.artifactIds")
        rows = await info.context.services.catalog.restore_artifacts(info.context.caller, ids)
        return RestoreArtifactsPayload(artifacts=[Artifact(row=row) for row in rows])

    @mutation(
        "Remove revisions from the artifact storage; folders that they were imported into keep their files. "
        "Refused while an import into the storage runs. For administrators."
    )
    async def cleanup_artifact_revisions(
        self,
        info: Info,
        asked: Annotated[
            CleanupArtifactRevisionsInput, strawberry.argument(name="input", description="Which revisions.")
        ],
    ) -> CleanupArtifactRevisionsPayload | None:
        """Clean revisions up."""
        ids = parse_ids(asked.artifact_revision_ids, "ArtifactRevision", field="input.artifactRevisionIds")
        rows = await info.context.services.cleanup.clean_up(info.context.caller, ids)
        return CleanupArtifactRevisionsPayload(artifact_revisions=revisions_as_connection(rows))

    @mutation("Publish a revision whose import waits for approval. For administrators.")
    async def approve_artifact_revision(
        self,
        info: Info,
        asked: Annotated[
            ApproveArtifactInput, strawberry.argument(name="input", description="Which revision.")
        ],
    ) -> ApproveArtifactPayload | None:
        """Approve a revision."""
        key = parse_id(asked.artifact_revision_id, "ArtifactRevision", field="input.artifactRevisionId")
        row = await info.context.services.approvals.decide_revision(
            info.context.caller, key, ApprovalDecision.APPROVED
        )
        return ApproveArtifactPayload(artifact_revision=ArtifactRevision(row=row))

    @mutation("End the import of a revision that waits for approval. For administrators.")
    async def reject_artifact_revision(
        self,
        info: Info,
        asked: Annotated[
            RejectArtifactInput, strawberry.argument(name="input", description="Which revision.")
        ],
    ) -> RejectArtifactPayload | None:
        """Reject a revision."""
        key = parse_id(asked.artifact_revision_id, "ArtifactRevision", field="input.artifactRevisionId")
        row = await info.context.services.approvals.decide_revision(
            info.context.caller, key, ApprovalDecision.REJECTED
        )
        return RejectArtifactPayload(artifact_revision=ArtifactRevision(row=row))

    @mutation("Make a URL that reads one file of a revision in an object storage, without a token.")
    async def get_presigned_download_url(
        self,
        info: Info,
        asked: Annotated[
            GetPresignedDownloadURLInput, strawberry.argument(name="input", description="Which file.")
        ],
    ) -> GetPresignedDownloadURLPayload | None:
        """Make a URL for a download."""
        key = parse_id(asked.artifact_revision_id, "ArtifactRevision", field="input.artifactRevisionId")
        signed = await info.context.services.presigned.download(
            info.context.caller, key, asked.key, asked.expiration
        )
        return GetPresignedDownloadURLPayload(presigned_url=signed.url)

    @mutation(
        "Make a URL that writes one file of a revision in an object storage. What is written so was not verified. "
        "For administrators, where the artifact is not read-only."
    )
    async def get_presigned_upload_url(
        self,
        info: Info,
        asked: Annotated[
            GetPresignedUploadURLInput, strawberry.argument(name="input", description="Which file.")
        ],
    ) -> GetPresignedUploadURLPayload | None:
        """Make a URL for an upload."""
        key = parse_id(asked.artifact_revision_id, "ArtifactRevision", field="input.artifactRevisionId")
        signed = await info.context.services.presigned.upload(info.context.caller, key, asked.key)
        return GetPresignedUploadURLPayload(presigned_url=signed.url, fields=json.dumps(signed.fields))

    @mutation("Let another Stowage scan. Not offered: answers UNSUPPORTED_REGISTRY. For administrators.")
    async def delegate_scan_artifacts(
        self,
        info: Info,
        asked: Annotated[
            DelegateScanArtifactsInput, strawberry.argument(name="input", description="What to scan.")
        ],
    ) -> DelegateScanArtifactsPayload | None:
        """Refuse."""
        await require_admin(info.context.caller)
        raise _not_offered("scans", asked.delegator_reservoir_id)

    @mutation("Let another Stowage import. Not offered: answers UNSUPPORTED_REGISTRY. For administrators.")
    async def delegate_import_artifacts(
        self,
        info: Info,
        asked: Annotated[
            DelegateImportArtifactsInput, strawberry.argument(name="input", description="What to import.")
        ],
    ) -> DelegateImportArtifactsPayload | None:
        """Refuse."""
        await require_admin(info.context.caller)
        raise _not_offered("imports", asked.delegator_reservoir_id)


def _not_offered(what: str, reservoir_id: strawberry.ID | None) -> UnsupportedRegistry:
    field = "input.delegatorReservoirId"
    if reservoir_id is not None:
        parse_id(reservoir_id, "ReservoirRegistry", "ArtifactRegistry", field=field)
    return UnsupportedRegistry(
        f"{what} are not passed on to another Stowage; ask that one directly, or scan a registry of this one",
        field=field,
    )
