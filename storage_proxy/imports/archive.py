"""ARCHIVE: what was verified becomes visible, all at once or not at all."""

from dataclasses import dataclass

from proxy_client.errors import VerificationBlocked
from proxy_client.wire import ArtifactStorageImportStep
from storage_proxy.auth import ManagerAuthorizer
from storage_proxy.concurrency import to_the_end
from storage_proxy.imports.context import ImportStepContext
from storage_proxy.imports.progress import ImportProgress


@dataclass(frozen=True)
class ArchiveStep:
    """Asks once more for permission and room, passes the point of no return, and publishes."""

    authorizer: ManagerAuthorizer
    step = ArtifactStorageImportStep.ARCHIVE

    async def run(self, context: ImportStepContext, progress: ImportProgress) -> None:
        """Publish what VERIFY left; roll a publish forward that an earlier attempt began."""
        plan, storage = context.step_metadata["plan"], context.storage(self.step)
        staged = context.step_metadata.get("staged", [])
        if not await storage.publishing(plan.task_id):
            answer = await self.authorizer.insist(plan.task_id)
            if not set(context.step_metadata.get("relied_on", ())) <= {
                waiver.id for waiver in answer.waivers
            }:
                raise VerificationBlocked(
                    "a waiver by which the model passed its verification is not in force any more; "
                    "ask an administrator for another one"
                )
            await storage.insist_on_limit(plan.task_id, limit=answer.limit_bytes)
            await progress.begin_publishing()
        # From here a cancel comes too late, and a publish that is cut short would have to be rolled forward.
        await to_the_end(storage.publish(plan, staged, context.order.on_conflict))
