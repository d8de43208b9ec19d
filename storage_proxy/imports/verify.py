"""VERIFY: every file of the plan is there with the registry's size and digest, and no verifier objects."""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy_client.errors import DigestMismatch, VerificationBlocked, VerificationIncomplete
from proxy_client.wire import ArtifactStorageImportStep, VerificationReport
from storage_proxy.imports.context import ImportStepContext
from storage_proxy.imports.progress import ImportProgress
from storage_proxy.imports.relay import relay
from storage_proxy.storages.base import Digests, ManifestFile
from storage_proxy.verifiers.base import AbstractVerifier, verify


@dataclass(frozen=True)
class VerifyStep:
    """Runs the verifiers over what was staged; the report is stored whatever it says."""

    verifiers: Sequence[AbstractVerifier]
    step = ArtifactStorageImportStep.VERIFY

    async def run(self, context: ImportStepContext, progress: ImportProgress) -> None:
        """Leave `staged` (the files to publish) and `staging` (where they are now) for ARCHIVE.

        Raises `DigestMismatch`, `VerificationBlocked` or `VerificationIncomplete`.
        """
        plan, present = context.step_metadata["plan"], context.step_metadata["present"]
        fetched = [file for file in plan.files if file.path not in {there.path for there in present}]
        staging = await relay(context, self.step, fetched)
        stated = {file.path: file for file in plan.files}
        # What lies at the destination already was read and hashed when it was found to be right.
        digests = {
            file.path: Digests(file.size, file.sha256, stated[file.path].blob_id or "") for file in present
        }
        for file in fetched:
            if (found := await staging.digests(file.path)) is not None:
                digests[file.path] = found
        report = await verify(self.verifiers, plan, digests, staging)
        await progress.verified(report)
        _insist_on_clean(report)
        context.step_metadata["staged"] = [
            ManifestFile(path=file.path, size=file.size, sha256=digests[file.path].sha256) for file in fetched
        ]


def _insist_on_clean(report: VerificationReport) -> None:
    if report.verdict == "clean":
        return
    findings = [finding for verifier in report.verifiers for finding in verifier.findings]
    if report.verdict == "blocked" and findings:
        kind = DigestMismatch if findings[0].category == "integrity" else VerificationBlocked
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise kind(f"{findings[0].message}{more}")
    raise VerificationIncomplete("not every file of the model could be verified; see the verification report")
