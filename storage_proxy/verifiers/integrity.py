"""Every file has the size and digest that the registry states for the pinned commit."""

from collections.abc import Mapping

from proxy_client.wire import Finding
from storage_proxy.storages.base import Digests, ImportPlan, PlannedFile, StagingArea
from storage_proxy.verifiers.base import AbstractVerifier


def mismatch(file: PlannedFile, found: Digests) -> str:
    """Say in one sentence what was stated and what was found, with both digests."""
    kind, stated = ("sha256", file.sha256) if file.sha256 else ("git blob id", file.blob_id)
    got = found.sha256 if file.sha256 else found.blob_id
    return (
        f"{file.path}: the registry states {file.size} bytes with {kind} {stated}, "
        f"the file has {found.size} bytes with {kind} {got}"
    )


class IntegrityVerifier(AbstractVerifier):
    """Compares sizes and digests; the digests were made while the bytes were written."""

    name = "integrity"
    version = "1"

    async def examine(
        self,
        plan: ImportPlan,
        digests: Mapping[str, Digests],
        staging: StagingArea,  # noqa: ARG002 -- the digests say all
    ) -> list[Finding]:
        return [
            Finding(
                file=file.path,
                rule="digest",
                category="integrity",
                severity="block",
                message=mismatch(file, digests[file.path]),
            )
            for file in plan.files
            if file.path in digests and not file.matches(digests[file.path])
        ]
