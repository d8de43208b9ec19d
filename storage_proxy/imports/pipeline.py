"""One import, from the order to the published files: DOWNLOAD, VERIFY, ARCHIVE over `StorageTarget`s.

The steps overlap by file, and nothing is visible before all of it is verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from proxy_client.errors import BadRequest, NotFound, StowageError
from proxy_client.wire import ArtifactStorageImportStep, ImportOrder, StorageTargetName, VerificationReport
from storage_proxy.auth import ManagerAuthorizer
from storage_proxy.concurrency import together
from storage_proxy.imports.archive import ArchiveStep
from storage_proxy.imports.arrivals import Arrivals
from storage_proxy.imports.context import ImportStepContext, open_targets
from storage_proxy.imports.download import DownloadStep
from storage_proxy.imports.fetch import Engine
from storage_proxy.imports.holdings import Holdings
from storage_proxy.imports.progress import ImportProgress
from storage_proxy.imports.verify import Verifications, VerifyStep
from storage_proxy.registries.base import AbstractRegistry
from storage_proxy.settings import Settings
from storage_proxy.storages.base import Digests
from storage_proxy.storages.pool import StoragePool
from storage_proxy.volumes.paths import join
from storage_proxy.volumes.pool import VolumePool

log = structlog.get_logger()


@dataclass(frozen=True)
class ImportPipeline:
    """Runs the steps. Everything it needs for the next attempt is in the staging areas and in the order."""

    settings: Settings
    volume_pool: VolumePool
    storage_pool: StoragePool
    registries: Mapping[str, AbstractRegistry]
    engine: Engine
    holdings: Holdings
    verifications: Verifications
    authorizer: ManagerAuthorizer

    def context(self, order: ImportOrder) -> ImportStepContext:
        """Resolve every name in the order. Raises `NotFound` for an unknown volume, storage or registry."""
        context = ImportStepContext(
            model=order.model,
            registry_name=order.registry_name,
            storage_pool=self.storage_pool.as_now(),
            storage_step_mappings=open_targets(order, self.volume_pool),
            order=order,
        )
        for step in ArtifactStorageImportStep:
            storage = context.storage(step)
            if step is ArtifactStorageImportStep.VERIFY and not storage.local:
                raise BadRequest(
                    f"the storage {storage.name} cannot be the target of VERIFY: verifiers need a file system; "
                    "name a vfs storage for that step",
                    field="storage_step_mappings.verify",
                )
        self.registry(order.registry_name)
        return context

    def registry(self, name: str) -> AbstractRegistry:
        """Return a registry by name. Raises `NotFound`."""
        if name not in self.registries:
            raise NotFound(
                f"this storage proxy has no registry {name!r}; add [artifact-registries.{name}] to its configuration, "
                "or enter it at the manager",
                field="registry_name",
            )
        return self.registries[name]

    async def run(
        self,
        context: ImportStepContext,
        progress: ImportProgress,
        approved: VerificationReport | None = None,
    ) -> None:
        """Bring the model to its destination. `approved` is the report that an administrator approved.

        Raises a `StowageError`, or `ApprovalNeeded`; then nothing of it is visible.
        """
        try:
            await self._run(context, progress, approved)
        finally:
            # However it ends: a descriptor keeps the room of what is removed.
            for staging in context.step_metadata.get("areas", {}).values():
                staging.close()

    async def _run(
        self, context: ImportStepContext, progress: ImportProgress, approved: VerificationReport | None
    ) -> None:
        download = DownloadStep(self.engine, self.holdings, self.volume_pool)
        verify = VerifyStep(
            self.verifications,
            approved=approved,
            publish_flagged=self.settings.verification.publish_flagged,
        )
        archive = ArchiveStep(self.authorizer)
        registry = self.registry(context.registry_name)

        if not await self._publishing(context):
            answer = await self.authorizer.insist(context.order.task_id)
            context.step_metadata |= {"waivers": answer.waivers, "limit": answer.limit_bytes}
        await progress.enter(download.step)
        await download.prepare(context, registry, progress)
        if not await self._publishing(context):
            # A file is looked at, and brought on, as soon as it is whole.
            arrivals = Arrivals()
            await together(
                download.run(context, registry, progress, arrivals), verify.follow(context, arrivals)
            )
            await progress.enter(verify.step)
            await verify.conclude(context, progress)
            await self.holdings.let_others_take(context.order.task_id)
        await progress.enter(archive.step)
        await archive.run(context, progress)
        await progress.published()
        await self._remember(context)
        await self.discard(context)

    async def _remember(self, context: ImportStepContext) -> None:
        """Let later imports copy what an artifact storage holds now. A vfolder's files are its users' alone."""
        target = context.order.storage_step_mappings.archive
        digests: dict[str, Digests] = context.step_metadata.get("digests", {})
        if isinstance(target, StorageTargetName) and digests:
            path = context.order.path
            await self.holdings.remember(
                target.storage_name, {join(path, file): found for file, found in digests.items()}
            )

    async def discard(self, context: ImportStepContext) -> None:
        """Remove the import's staging areas everywhere; what cannot be removed is logged and left."""
        for storage in {
            id(storage): storage for storage in map(context.storage, ArtifactStorageImportStep)
        }.values():
            try:
                staging = await storage.open_staging(context.order.task_id)
                await staging.discard()
            except StowageError as exc:
                log.warning("a staging area could not be removed", storage=storage.name, code=exc.code)

    @staticmethod
    async def _publishing(context: ImportStepContext) -> bool:
        return await context.storage(ArtifactStorageImportStep.ARCHIVE).publishing(context.order.task_id)
