"""DOWNLOAD: everything of the pinned commit that the destination does not hold yet, into a staging area."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from proxy_client.errors import SourceInvalid
from proxy_client.wire import ArtifactStorageImportStep
from storage_proxy.concurrency import together, until
from storage_proxy.imports.arrivals import Arrivals
from storage_proxy.imports.context import ImportStepContext
from storage_proxy.imports.fetch import Engine, Transfer
from storage_proxy.imports.holdings import Holdings
from storage_proxy.imports.progress import ImportProgress
from storage_proxy.imports.reuse import Reuse
from storage_proxy.registries.base import AbstractRegistry
from storage_proxy.storages.base import AbstractStorage, Digests, ImportPlan, PlannedFile, StagingArea
from storage_proxy.volumes.paths import check_tree
from storage_proxy.volumes.pool import VolumePool

# Seconds between two looks at a limit while bytes arrive; rarer where a look takes long, so that looking costs a twentieth.
_LOOK = 2.0
_LOOKS_SHARE = 20


@dataclass(frozen=True)
class DownloadStep:
    """Pins the commit, plans, and fetches files side by side, each from where an earlier attempt stopped.

    What the proxy has already is copied, unless the import is forced.
    """

    engine: Engine
    holdings: Holdings
    volume_pool: VolumePool
    step = ArtifactStorageImportStep.DOWNLOAD

    async def prepare(
        self, context: ImportStepContext, registry: AbstractRegistry, progress: ImportProgress
    ) -> None:
        """Leave `plan` and `staging` for what follows."""
        storage = context.storage(self.step)
        archive = context.storage(ArtifactStorageImportStep.ARCHIVE)
        staging = await storage.open_staging(context.order.task_id)
        context.step_metadata["areas"] = {self.step: staging}
        plan = await staging.load_plan() or await self._plan(context, registry, staging, progress)
        await progress.plan(len(plan.files), plan.total_bytes)
        context.step_metadata["plan"] = plan
        if await archive.publishing(plan.task_id):
            progress.have(plan.total_bytes)
            for _ in plan.files:
                progress.file_done()
            return
        await archive.check_conflicts(plan, context.order.on_conflict)

    async def run(
        self,
        context: ImportStepContext,
        registry: AbstractRegistry,
        progress: ImportProgress,
        arrivals: Arrivals,
    ) -> None:
        """Fetch what is missing, and hand every file on as soon as it is whole."""
        plan: ImportPlan = context.step_metadata["plan"]
        staging: StagingArea = context.step_metadata["areas"][self.step]
        archive = context.storage(ArtifactStorageImportStep.ARCHIVE)
        present = [] if context.order.force else await archive.present_files(plan)
        stated = {file.path: file for file in plan.files}
        # What lies at the destination was read there, and found to be what the registry states.
        there = {file.path: Digests(file.size, file.sha256, stated[file.path].blob_id) for file in present}
        staged = await staging.all_digests(file for file in plan.files if file.path not in there)
        missing: list[PlannedFile] = []
        for file in plan.files:
            found = there.get(file.path) or staged.get(file.path)
            if found is None or (file.path not in there and not file.matches(found)):
                missing.append(file)
                continue
            progress.have(file.size)
            progress.file_done()
            arrivals.put(file, found, present=file.path in there)
        for path in staged.keys() & {file.path for file in missing}:
            await staging.drop(path)
        storage, task_id = context.storage(self.step), plan.task_id
        limit = context.step_metadata.get("limit") if storage is archive else None
        await storage.reserve(sum(file.size for file in missing), task_id=task_id, limit=limit)
        await until(
            self._bring(context, registry, progress, arrivals, missing),
            _room_is_left(storage, task_id, limit),
        )
        arrivals.end()

    async def _bring(
        self,
        context: ImportStepContext,
        registry: AbstractRegistry,
        progress: ImportProgress,
        arrivals: Arrivals,
        missing: Sequence[PlannedFile],
    ) -> None:
        """Copy what the proxy has already, and fetch the rest."""
        plan, staging = context.step_metadata["plan"], context.step_metadata["areas"][self.step]
        reuse = Reuse(self.holdings, self.volume_pool, context, staging, progress, arrivals.put)

        async def fetch(files: Sequence[PlannedFile]) -> None:
            await Transfer(self.engine, plan, staging, registry, progress, arrivals.put).run(files)

        if context.order.force:
            await fetch(missing)
        else:
            now, awaited = await reuse.split(plan, await reuse.held(missing))
            left: list[PlannedFile] = []

            async def wait() -> None:
                left.extend(await awaited.bring())

            await together(fetch(now), wait())
            await fetch(left)

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


async def _room_is_left(storage: AbstractStorage, task_id: UUID, limit: int | None) -> None:
    """Hold the import to the limit for as long as it writes: file systems without quotas stop nobody. Raises `QuotaExceeded`."""
    pause = _LOOK
    while True:
        await asyncio.sleep(pause)
        began = time.monotonic()
        await storage.insist_on_limit(task_id, limit=limit)
        pause = max(_LOOK, _LOOKS_SHARE * (time.monotonic() - began))
