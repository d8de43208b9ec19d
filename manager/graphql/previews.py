"""What an import into a folder would meet."""

from typing import Annotated

import strawberry

from manager.graphql.context import Info
from manager.graphql.fields import field
from manager.graphql.ids import parse_id
from manager.graphql.scalars import ByteSize
from manager.previews import Preview


@strawberry.input(description="How the import would be asked for.")
class ImportPreviewOptions:
    """How the import would be asked for."""

    path: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="The directory in the folder; `{name}/{version}` without it, `/` is the folder's root.",
    )


@strawberry.input(description="What would be imported, and where to.")
class ImportPreviewInput:
    """What would be imported, and where to."""

    artifact_revision_id: strawberry.ID = strawberry.field(description="The revision.")
    vfolder_id: strawberry.ID = strawberry.field(description="The folder; the caller may write to it.")
    options: ImportPreviewOptions | None = strawberry.field(
        default=None, description="How the import would be asked for."
    )


@strawberry.type(description="A file or directory in the way of an import.")
class ImportConflict:
    """A file or directory in the way of an import."""

    path: str = strawberry.field(description="Its path from the folder's root.")
    reason: str = strawberry.field(description="Why it is in the way, for people.")


@strawberry.type(description="The room that the folder's quota leaves.")
class ImportPreviewQuota:
    """The room that the folder's quota leaves."""

    limit: ByteSize | None = strawberry.field(description="The limit; null is none.")
    used: ByteSize | None = strawberry.field(description="What is kept; null where nobody knows.")
    reserved: ByteSize = strawberry.field(description="What running imports are to bring.")
    free: ByteSize | None = strawberry.field(
        description="What further imports may bring; null without a limit."
    )


@strawberry.type(description="What an import into a folder would bring and meet. Nothing is reserved.")
class ImportPreview:
    """What an import into a folder would bring and meet."""

    path: str = strawberry.field(description="The directory that it would fill, from the folder's root.")
    size: ByteSize = strawberry.field(description="The size of all its files.")
    missing: ByteSize = strawberry.field(description="What of them is not there yet, and would be fetched.")
    already_there: bool = strawberry.field(description="Whether all its files are there.")
    quota: ImportPreviewQuota = strawberry.field(description="The room that the folder's quota leaves.")
    fits: bool = strawberry.field(description="Whether what is missing has room in the quota.")
    conflicts: list[ImportConflict] = strawberry.field(
        description="What is in the way, at most 100. Files that an earlier import of this artifact put there and nobody "
        "changed are not. With `onConflict: OVERWRITE` files are replaced."
    )
    truncated: bool = strawberry.field(
        description="Whether the look was cut short: there may be more conflicts, and less may be missing."
    )

    @classmethod
    def of(cls, preview: Preview) -> "ImportPreview":
        """Present what was seen."""
        seen, quota = preview.seen, preview.quota
        return cls(
            path=preview.path,
            size=ByteSize(seen.total_bytes),
            missing=ByteSize(seen.missing_bytes),
            already_there=not seen.missing_bytes and not seen.conflicts and not seen.truncated,
            quota=ImportPreviewQuota(
                limit=_size(quota.row.limit_bytes),
                used=_size(quota.used),
                reserved=ByteSize(quota.reserved),
                free=_size(quota.available),
            ),
            fits=preview.fits,
            conflicts=[ImportConflict(path=each.path, reason=each.reason) for each in seen.conflicts],
            truncated=seen.truncated,
        )


@strawberry.type
class PreviewQuery:
    """The query about what an import would meet."""

    @field(
        "What an import into a folder would bring and meet, asked of the folder's storage proxy and the registry now."
    )
    async def import_preview(
        self,
        info: Info,
        asked: Annotated[
            ImportPreviewInput,
            strawberry.argument(name="input", description="What would be imported, and where to."),
        ],
    ) -> ImportPreview:
        """Ask the proxy."""
        context = info.context
        revision_id = parse_id(
            asked.artifact_revision_id, "ArtifactRevision", field="input.artifactRevisionId"
        )
        vfolder_id = parse_id(asked.vfolder_id, "VFolder", field="input.vfolderId")
        path = None if asked.options is None or asked.options.path is strawberry.UNSET else asked.options.path
        return ImportPreview.of(
            await context.services.previews.preview(context.caller, revision_id, vfolder_id, path)
        )


def _size(value: int | None) -> ByteSize | None:
    return None if value is None else ByteSize(value)
