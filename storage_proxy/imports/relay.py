"""How staged bytes get from one step's storage to the next one's."""

from collections.abc import Iterable

from proxy_client.errors import DigestMismatch
from proxy_client.wire import ArtifactStorageImportStep
from storage_proxy.concurrency import side_by_side
from storage_proxy.imports.context import ImportStepContext
from storage_proxy.storages.base import PlannedFile, StagingArea
from storage_proxy.verifiers.integrity import mismatch

RELAY_WIDTH = 4


async def relay(
    context: ImportStepContext, step: ArtifactStorageImportStep, files: Iterable[PlannedFile]
) -> StagingArea:
    """Return the step's own staging area with the files in it, copied from the step before if that is another storage.

    A copy is hashed as it is written and compared with the plan, and one that an earlier attempt finished is kept.
    """
    order = list(ArtifactStorageImportStep)
    before = context.storage(order[order.index(step) - 1])
    here = context.storage(step)
    source: StagingArea = context.step_metadata["staging"]
    if here is before:
        return source
    target = await here.open_staging(context.order.task_id)
    wanted = list(files)
    await here.reserve(sum(file.size for file in wanted))

    async def copy(file: PlannedFile) -> None:
        found = await target.digests(file.path)
        if found is not None and file.matches(found):
            return
        async with target.open_writer(file.path, file.size) as writer:
            await writer.restart()
            async for chunk in source.read(file.path):
                await writer.write(chunk)
            found = await writer.finish()
        if not file.matches(found):
            await target.drop(file.path)
            raise DigestMismatch(f"{mismatch(file, found)} (copied from {before.name} to {here.name})")

    await side_by_side(copy, wanted, width=RELAY_WIDTH)
    context.step_metadata["staging"] = target
    return target
