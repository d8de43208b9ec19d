"""VERIFY: every file of the plan is there with the registry's size and digest, and no verifier objects."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from proxy_client.errors import DigestMismatch, StorageFailure, VerificationBlocked, VerificationIncomplete
from proxy_client.wire import ArtifactStorageImportStep, VerificationReport, Waiver
from storage_proxy.concurrency import side_by_side
from storage_proxy.imports.approvals import ApprovalNeeded, covers
from storage_proxy.imports.arrivals import Arrival, Arrivals
from storage_proxy.imports.context import ImportStepContext
from storage_proxy.imports.progress import ImportProgress
from storage_proxy.imports.relay import between, relay, relay_visible
from storage_proxy.storages.base import Digests, ImportPlan, ManifestFile, PlannedFile, StagingArea
from storage_proxy.verifiers.base import StagedFile
from storage_proxy.verifiers.sandbox import MOST_BYTES
from storage_proxy.verifiers.verification import Verification
from storage_proxy.verifiers.worker import MOST_FILES
from storage_proxy.volumes.paths import join
from storage_proxy.volumes.threads import in_thread, stop_point

_PIECE = 1 << 20  # bytes
_WIDTH = 4  # files, or batches of small ones, that are looked at or copied side by side
DOWNLOAD, VERIFY, ARCHIVE = ArtifactStorageImportStep

Verifications = Callable[[str, Sequence[PlannedFile], Sequence[Waiver]], Verification]
"""Makes the verification of one import: from the registry's name, the planned files and the waivers in force."""


@dataclass
class VerifyStep:
    """Runs the verifiers over each file as it arrives; the report is stored whatever it says.

    approved: the report that an administrator approved; its files, which waited, are read and hashed again.
    """

    verifications: Verifications
    approved: VerificationReport | None = None
    publish_flagged: bool = False
    step = ArtifactStorageImportStep.VERIFY
    _staged: dict[str, ManifestFile] = field(default_factory=dict)
    _digests: dict[str, Digests] = field(default_factory=dict)

    async def follow(self, context: ImportStepContext, arrivals: Arrivals) -> None:
        """Bring each arriving file to this step's storage, examine it, and bring it on to where it is published from."""
        plan: ImportPlan = context.step_metadata["plan"]
        context.step_metadata["verification"] = self.verifications(
            context.registry_name, plan.files, context.step_metadata.get("waivers", ())
        )
        areas = await self._areas(context)

        async def take(_: int) -> None:
            async for batch in arrivals.batches(MOST_FILES, MOST_BYTES):
                await self._take(context, areas, batch)

        await side_by_side(take, range(_WIDTH), width=_WIDTH)

    async def _areas(self, context: ImportStepContext) -> dict[ArtifactStorageImportStep, StagingArea]:
        """Open each step's staging area; steps with the same storage share one."""
        plan: ImportPlan = context.step_metadata["plan"]
        areas: dict[ArtifactStorageImportStep, StagingArea] = context.step_metadata["areas"]
        for step, before in ((VERIFY, DOWNLOAD), (ARCHIVE, VERIFY)):
            storage = context.storage(step)
            if storage is context.storage(before):
                areas[step] = areas[before]
            elif step is ARCHIVE and storage is context.storage(DOWNLOAD):
                areas[step] = areas[DOWNLOAD]
            else:
                # Verifiers read what is staged for VERIFY; what is staged for ARCHIVE is only published.
                destination = plan.path if step is ARCHIVE else None
                areas[step] = await storage.open_staging(plan.task_id, destination=destination)
                limit = context.step_metadata.get("limit") if step is ARCHIVE else None
                staged = await areas[step].all_digests(plan.files)  # by an earlier attempt
                needed = plan.total_bytes - sum(found.size for found in staged.values())
                await storage.reserve(needed, task_id=plan.task_id, limit=limit)
        return areas

    async def _take(
        self,
        context: ImportStepContext,
        areas: dict[ArtifactStorageImportStep, StagingArea],
        arrivals: Sequence[Arrival],
    ) -> None:
        prepared = [await self._prepare(context, areas, arrival) for arrival in arrivals]
        await context.step_metadata["verification"].files([staged for staged, _ in prepared])
        for arrival, (_, digests) in zip(arrivals, prepared, strict=True):
            if arrival.present:
                continue
            file = arrival.file
            await self._bring(context, areas, VERIFY, ARCHIVE, file)
            self._digests[file.path] = digests
            self._staged[file.path] = ManifestFile(path=file.path, size=file.size, sha256=digests.sha256)

    async def _prepare(
        self,
        context: ImportStepContext,
        areas: dict[ArtifactStorageImportStep, StagingArea],
        arrival: Arrival,
    ) -> tuple[StagedFile, Digests]:
        """Have the file where the verifiers can read it."""
        file, digests = arrival.file, arrival.digests
        if arrival.present:
            opener = await self._present(context, areas, file)
        else:
            await self._bring(context, areas, DOWNLOAD, VERIFY, file)
            opener = partial(_open_staged, areas[VERIFY], file.path)
            if self.approved is not None:
                digests = await in_thread(_hashed, file, opener)
        return StagedFile(file.path, file.size, digests, opener), digests

    @staticmethod
    async def _bring(
        context: ImportStepContext,
        areas: dict[ArtifactStorageImportStep, StagingArea],
        source: ArtifactStorageImportStep,
        target: ArtifactStorageImportStep,
        file: PlannedFile,
    ) -> None:
        if areas[target] is not areas[source] and areas[target] is not areas[DOWNLOAD]:
            names = between(context.storage(source), context.storage(target))
            await relay(file, areas[source], areas[target], names)

    @staticmethod
    async def _present(
        context: ImportStepContext, areas: dict[ArtifactStorageImportStep, StagingArea], file: PlannedFile
    ) -> Callable[[], BinaryIO]:
        """Return what opens a file that lies at the destination already, and was read and hashed there."""
        plan: ImportPlan = context.step_metadata["plan"]
        archive, path = context.storage(ARCHIVE), join(plan.path, file.path)
        if archive.local:
            return lambda: _stream(archive.open_local(path), file.path)
        await relay_visible(file, path, archive, areas[VERIFY])
        return partial(_open_staged, areas[VERIFY], file.path)

    async def conclude(self, context: ImportStepContext, progress: ImportProgress) -> None:
        """Leave `staged` (the files to publish) and `relied_on` (the waivers that mattered) for ARCHIVE.

        Raises `DigestMismatch`, `VerificationBlocked`, `VerificationIncomplete` or `ApprovalNeeded`.
        """
        plan: ImportPlan = context.step_metadata["plan"]
        report = await context.step_metadata["verification"].conclude()
        await progress.verified(report)
        flagged = report.verdict == "flagged"
        if flagged and not (self.publish_flagged or covers(self.approved, report)):
            raise ApprovalNeeded
        if not flagged:
            _insist_on_clean(report)
        context.step_metadata["staged"] = [
            self._staged[file.path] for file in plan.files if file.path in self._staged
        ]
        context.step_metadata["relied_on"] = context.step_metadata["verification"].relied_on
        context.step_metadata["digests"] = self._digests


def _open_staged(area: StagingArea, path: str) -> BinaryIO:
    return _stream(area.open_local(path), path)


def _hashed(file: PlannedFile, opener: Callable[[], BinaryIO]) -> Digests:
    blob = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False) if file.wants_blob_id else None
    sha256, size = hashlib.sha256(), 0
    with opener() as stream:
        while piece := stream.read(_PIECE):
            stop_point()
            sha256.update(piece)
            if blob is not None:
                blob.update(piece)
            size += len(piece)
    return Digests(size, sha256.hexdigest(), None if blob is None else blob.hexdigest())


def _stream(fd: int | None, path: str) -> BinaryIO:
    if fd is None:
        raise StorageFailure(f"{path} is not there to be looked at")
    return os.fdopen(fd, "rb")


def _insist_on_clean(report: VerificationReport) -> None:
    if report.verdict == "clean":
        return
    findings = [
        finding
        for verifier in report.verifiers
        for finding in verifier.findings
        if finding.severity not in {"note", "flag"} and finding.waiver is None
    ]
    if report.verdict == "blocked" and findings:
        kind = DigestMismatch if findings[0].category == "integrity" else VerificationBlocked
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise kind(f"{findings[0].message}{more}")
    raise VerificationIncomplete("not every file of the model could be verified; see the verification report")
