"""Every file has the size and digest that the registry states for the pinned commit."""

from collections.abc import Sequence

from proxy_client.wire import Finding
from storage_proxy.storages.base import Digests, PlannedFile
from storage_proxy.verifiers.base import StagedFile, TreeResult, TreeVerifier
from storage_proxy.verifiers.policy import Policy


def mismatch(file: PlannedFile, found: Digests) -> str:
    """Say in one sentence what was stated and what was found, with both digests."""
    kind, stated = ("sha256", file.sha256) if file.sha256 else ("git blob id", file.blob_id)
    got = found.sha256 if file.sha256 else found.blob_id
    return (
        f"{file.path}: the registry states {file.size} bytes with {kind} {stated}, "
        f"the file has {found.size} bytes with {kind} {got}"
    )


class IntegrityVerifier(TreeVerifier):
    """Compares sizes and digests; the digests were made while the bytes were written."""

    name = "integrity"
    version = "1"

    async def examine_tree(
        self,
        files: Sequence[StagedFile],
        planned: Sequence[PlannedFile],
        policy: Policy,  # noqa: ARG002 -- no policy makes other bytes the right ones
    ) -> TreeResult:
        stated = {file.path: file for file in planned}
        hashed = [(stated[file.path], file.digests) for file in files if file.digests is not None]
        findings = [
            Finding(
                file=file.path,
                rule="digest",
                category="integrity",
                severity="block",
                message=mismatch(file, digests),
            )
            for file, digests in hashed
            if not file.matches(digests)
        ]
        return TreeResult(findings, {file.path for file, _digests in hashed})
