"""What the registry itself says of the safety of its files: it may block, and never clears anything."""

from collections.abc import Sequence

from proxy_client.wire import Finding
from storage_proxy.storages.base import PlannedFile
from storage_proxy.verifiers.base import Severity, StagedFile, TreeResult, TreeVerifier, plain
from storage_proxy.verifiers.policy import Policy

_SEVERITIES: dict[str, Severity] = {
    "unsafe": "block",
    "infected": "block",
    "suspicious": "flag",
    "caution": "flag",
}
_SAFE = "safe"


class RegistryVerifier(TreeVerifier):
    """Repeats the security status that came with the list of files (`securityFileStatus` of the Hub's tree API).

    A file that the registry calls safe counts as covered by this verifier, which is worth nothing without the others.
    """

    name = "registry"
    version = "1"

    async def examine_tree(
        self,
        files: Sequence[StagedFile],  # noqa: ARG002 -- their bytes are the others' business
        planned: Sequence[PlannedFile],
        policy: Policy,  # noqa: ARG002 -- somebody else judges here
    ) -> TreeResult:
        findings = [
            Finding(
                file=file.path,
                rule="registry-status",
                category="registry",
                severity=_SEVERITIES[file.security],
                message=plain(f"{file.path}: the registry calls the file {file.security}"),
            )
            for file in planned
            if file.security in _SEVERITIES
        ]
        covered = {file.path for file in planned if file.security in {_SAFE, *_SEVERITIES}}
        reason = None if len(covered) == len(planned) else "the registry says nothing of some files"
        return TreeResult(findings, covered, reason)
