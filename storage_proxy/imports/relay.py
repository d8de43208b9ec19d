"""How a staged file gets from one step's storage to the next one's."""

import os
from collections.abc import AsyncIterator

from proxy_client.errors import DigestMismatch
from storage_proxy.storages.base import AbstractStorage, Digests, PlannedFile, StagingArea
from storage_proxy.verifiers.integrity import mismatch
from storage_proxy.volumes.threads import in_thread

_SMALL = 512 << 10  # bytes


async def relay(file: PlannedFile, source: StagingArea, target: StagingArea, where: str) -> Digests:
    """Copy one finished file, unless an earlier attempt did; the copy is hashed and compared with the plan.

    `where` names both storages for messages. Raises `DigestMismatch`, or what the storages raise.
    """
    found = await target.digests(file)
    if found is not None and file.matches(found):
        return found
    return await _insist(file, await _copied(file, source, target), target, where)


async def relay_visible(
    file: PlannedFile, path: str, source: AbstractStorage, target: StagingArea
) -> Digests:
    """Copy one visible file into a staging area, unless an earlier attempt did. Raises as `relay`."""
    found = await target.digests(file)
    if found is None or not file.matches(found):
        found = await copy_stream(source.stream_download(path), file, target)
    return await _insist(file, found, target, source.name)


async def _insist(file: PlannedFile, found: Digests, target: StagingArea, where: str) -> Digests:
    if not file.matches(found):
        await target.drop(file.path)
        raise DigestMismatch(f"{mismatch(file, found)} (copied from {where})")
    return found


async def _copied(file: PlannedFile, source: StagingArea, target: StagingArea) -> Digests:
    fd = await in_thread(source.open_local, file.path)
    if fd is not None:
        try:
            return await in_thread(copy_local, fd, file, target)
        finally:
            os.close(fd)
    return await copy_stream(source.read(file.path), file, target)


async def copy_stream(chunks: AsyncIterator[bytes], file: PlannedFile, target: StagingArea) -> Digests:
    """Write one file from front to back into a staging area. Raises as `StagedWriter.write`, and what `chunks` raises."""
    writer = await in_thread(target.open_writer, file)
    try:
        await in_thread(writer.restart)
        at = 0
        async for chunk in chunks:
            # Bytes never change: the writer may keep them for as long as it likes.
            await in_thread(writer.write, at, memoryview(chunk))
            at += len(chunk)
        return await in_thread(writer.finish)
    finally:
        await in_thread(writer.close)


def copy_local(fd: int, file: PlannedFile, target: StagingArea) -> Digests:
    """Bring an open local file into a staging area. Blocks; raises as `StagedWriter.copy_from`."""
    if file.size <= _SMALL:
        return target.add(file, os.pread(fd, file.size, 0))
    with target.open_writer(file) as writer:
        writer.restart()
        writer.copy_from(fd)
        return writer.finish()


def between(source: AbstractStorage, target: AbstractStorage) -> str:
    """Name two storages for a message."""
    return f"{source.name} to {target.name}"
