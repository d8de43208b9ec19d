"""DOWNLOAD: everything of the pinned commit that the destination does not hold yet, into a staging area."""

import time
from dataclasses import dataclass

from proxy_client.errors import DigestMismatch, SourceInvalid, SourceUnavailable
from proxy_client.wire import ArtifactStorageImportStep
from storage_proxy.concurrency import side_by_side
from storage_proxy.imports.context import ImportStepContext
from storage_proxy.imports.progress import ImportProgress
from storage_proxy.registries.base import AbstractRegistry
from storage_proxy.registries.patience import Patience, RateFloor
from storage_proxy.settings import Settings
from storage_proxy.storages.base import (
    AbstractStorage,
    Digests,
    ImportPlan,
    ManifestFile,
    PlannedFile,
    StagedWriter,
    StagingArea,
)
from storage_proxy.verifiers.integrity import mismatch
from storage_proxy.volumes.paths import check_tree


@dataclass(frozen=True)
class DownloadStep:
    """Pins the commit, plans, and fetches files side by side, each from where an earlier attempt stopped."""

    settings: Settings
    step = ArtifactStorageImportStep.DOWNLOAD

    async def run(
        self, context: ImportStepContext, registry: AbstractRegistry, progress: ImportProgress
    ) -> None:
        """Leave `plan`, `staging` and `present` (the files that lie at the destination already) for the next steps."""
        storage = context.storage(self.step)
        archive = context.storage(ArtifactStorageImportStep.ARCHIVE)
        staging = await storage.open_staging(context.order.task_id)
        plan = await staging.load_plan() or await self._plan(context, registry, staging, progress)
        await progress.plan(len(plan.files), plan.total_bytes)
        context.step_metadata |= {"plan": plan, "staging": staging, "present": ()}
        if await archive.publishing(plan.task_id):
            progress.have(plan.total_bytes)
            for _ in plan.files:
                progress.file_done()
            return
        await archive.check_conflicts(plan, context.order.on_conflict)
        present = () if context.order.force else tuple(await archive.present_files(plan))
        context.step_metadata["present"] = present
        await self._fetch(plan, staging, storage, present, registry, progress)

    async def _plan(
        self,
        context: ImportStepContext,
        registry: AbstractRegistry,
        staging: StagingArea,
        progress: ImportProgress,
    ) -> ImportPlan:
        model, order = context.model, context.order
        commit = model.commit or await registry.resolve(model.model_id, model.revision)
        await progress.pin(commit)
        files = await registry.list_files(model.model_id, commit)
        if not files:
            raise SourceInvalid(
                f"{model.model_id} has no files at commit {commit}; there is nothing to import"
            )
        check_tree([file.path for file in files])
        plan = ImportPlan(
            task_id=order.task_id,
            requested_by=order.requested_by,
            registry=context.registry_name,
            model_id=model.model_id,
            revision=model.revision,
            commit=commit,
            path=order.path,
            files=tuple(files),
        )
        await staging.save_plan(plan)
        return plan

    async def _fetch(
        self,
        plan: ImportPlan,
        staging: StagingArea,
        storage: AbstractStorage,
        present: tuple[ManifestFile, ...],
        registry: AbstractRegistry,
        progress: ImportProgress,
    ) -> None:
        there = {file.path for file in present}
        missing: list[PlannedFile] = []
        for file in plan.files:
            if file.path in there or await _staged(staging, file):
                progress.have(file.size)
                progress.file_done()
            else:
                missing.append(file)
        await storage.reserve(sum(file.size for file in missing))
        transfer = _Transfer(self.settings, plan, staging, registry, progress)
        await side_by_side(transfer.fetch, missing, width=self.settings.worker.files_per_import)


async def _staged(staging: StagingArea, file: PlannedFile) -> bool:
    found = await staging.digests(file.path)
    if found is None:
        return False
    if file.matches(found):
        return True
    await staging.drop(file.path)
    return False


@dataclass(frozen=True)
class _Transfer:
    settings: Settings
    plan: ImportPlan
    staging: StagingArea
    registry: AbstractRegistry
    progress: ImportProgress

    async def fetch(self, file: PlannedFile) -> None:
        """Fetch one file; one with a wrong digest is fetched once more from its start."""
        found = await self._receive(file)
        if not file.matches(found):
            await self._forget(file)
            found = await self._receive(file)
        if not file.matches(found):
            await self._forget(file)
            raise DigestMismatch(f"{mismatch(file, found)} (fetched twice)")
        self.progress.file_done()

    async def _forget(self, file: PlannedFile) -> None:
        await self.staging.drop(file.path)
        self.progress.have(-file.size)

    async def _receive(self, file: PlannedFile) -> Digests:
        patience = Patience(self.settings.transfer, self.settings.transfer.retries)
        floor = RateFloor(self.settings.transfer)
        async with self.staging.open_writer(file.path, file.size) as writer:
            self.progress.have(writer.offset)
            furthest = writer.offset
            while writer.offset < file.size:
                try:
                    await self._stream(file, writer, floor)
                except SourceUnavailable as fault:
                    if patience.progressed(writer.offset - furthest):
                        furthest = writer.offset
                    await patience.wait(fault)
                except SourceInvalid as fault:
                    # What came may be anything: nothing of this file is kept.
                    await self._restart(writer)
                    await patience.wait(fault)
            return await writer.finish()

    async def _stream(self, file: PlannedFile, writer: StagedWriter, floor: RateFloor) -> None:
        async with self.registry.open_file(
            self.plan.model_id, self.plan.commit, file, writer.offset
        ) as stream:
            if stream.offset != writer.offset:
                await self._restart(writer)
            asked = time.monotonic()
            async for chunk in stream.chunks:
                floor.count(len(chunk), time.monotonic() - asked)
                if writer.offset + len(chunk) > file.size:
                    raise SourceInvalid(
                        f"the registry sends more than the {file.size} bytes it states for {file.path}"
                    )
                await writer.write(chunk)
                self.progress.received(len(chunk))
                asked = time.monotonic()
        if writer.offset < file.size:
            raise SourceUnavailable(
                f"the registry ended {file.path} after {writer.offset} of {file.size} bytes"
            )

    async def _restart(self, writer: StagedWriter) -> None:
        self.progress.have(-writer.offset)
        await writer.restart()
