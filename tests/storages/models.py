"""Models to import, and a look at what lies in a folder."""

import asyncio
import hashlib
import json
import mmap
import os
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from uuid import UUID, uuid4

from proxy_client.wire import OnConflict
from storage_proxy.storages.base import (
    AbstractStorage,
    Digests,
    ImportPlan,
    Manifest,
    ManifestFile,
    PlannedFile,
    StagedWriter,
    StagingArea,
)

FAIL, OVERWRITE = OnConflict.FAIL, OnConflict.OVERWRITE


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests_of(data: bytes, *, blob_id: bool = True) -> Digests:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return Digests(len(data), sha256(data), blob if blob_id else None)


def planned(path: str, data: bytes, *, lfs: bool = True) -> PlannedFile:
    """Plan a file as a registry states it: with its sha256 if it is an LFS file, else with Git's blob id."""
    if lfs:
        return PlannedFile(path=path, size=len(data), sha256=sha256(data))
    return PlannedFile(path=path, size=len(data), blob_id=digests_of(data).blob_id)


def aligned(content: bytes) -> memoryview:
    """Put bytes into memory that begins with a page, as the buffers of a transfer do."""
    memory = mmap.mmap(-1, max(1, len(content)), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.write(content)
    return memoryview(memory)[: len(content)]


def fill(writer: StagedWriter, data: bytes, step: int = 1 << 20) -> None:
    """Write what is missing, front to back."""
    for start, stop in writer.missing():
        for begin in range(start, stop, step):
            writer.write(begin, aligned(data[begin : min(begin + step, stop)]))


def write(staging: StagingArea, file: PlannedFile, data: bytes) -> Digests:
    """Bring a file into a staging area through a writer; blocks."""
    with staging.open_writer(file) as writer:
        fill(writer, data)
        return writer.finish()


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


class Place(Protocol):
    """A storage of any kind under test, and a look at it past its own interface."""

    storage: AbstractStorage

    async def visible(self) -> dict[str, object]:
        """Return every visible file's bytes, and what a manifest says but for its time."""
        ...

    async def hidden(self) -> list[str]:
        """Return whatever lies in staging, unfinished uploads too."""
        ...

    async def put(self, files: Mapping[str, bytes]) -> None:
        """Write files as the user does."""
        ...


@dataclass
class Storage:
    """A storage in a directory under test, and where its visible files lie."""

    storage: AbstractStorage
    root: Path
    staging: Path

    async def visible(self) -> dict[str, object]:
        return {path: found for path, found in look(self.root).items() if found != "folder"}

    async def hidden(self) -> list[str]:
        return [str(path.relative_to(self.staging)) for path in self.staging.rglob("*") if path.is_file()]

    async def put(self, files: Mapping[str, bytes]) -> None:
        put(self.root, files)


@dataclass(frozen=True)
class Model:
    """A model at one revision."""

    files: Mapping[str, bytes]
    model_id: str = "org/model"
    revision: str = "main"
    task_id: UUID = field(default_factory=uuid4)

    def plan(self, path: str) -> ImportPlan:
        """Plan it; half of the files have a sha256 stated, the others a blob id."""
        return ImportPlan(
            task_id=self.task_id,
            requested_by=UUID(int=1),
            registry="hub",
            model_id=self.model_id,
            revision=self.revision,
            commit=sha256(repr(sorted(self.files.items())).encode())[:40],
            path=path,
            files=tuple(
                planned(name, data, lfs=bool(number % 2))
                for number, (name, data) in enumerate(self.files.items())
            ),
        )

    def staged(self, *without: str) -> list[ManifestFile]:
        """List what `stage` brings."""
        return [
            ManifestFile(path=name, size=len(data), sha256=sha256(data))
            for name, data in self.files.items()
            if name not in without
        ]

    async def stage(self, storage: AbstractStorage, path: str, *without: str) -> None:
        """Do what DOWNLOAD does, in turns with a writer and at once."""
        plan = self.plan(path)
        staging = await storage.open_staging(self.task_id)
        await staging.save_plan(plan)

        def work() -> None:
            for number, file in enumerate(plan.files):
                if file.path not in without:
                    data = self.files[file.path]
                    found = write(staging, file, data) if number % 2 else staging.add(file, data)
                    assert file.matches(found)

        try:
            await asyncio.to_thread(work)
        finally:
            await staging.settle()

    async def bring(self, storage: AbstractStorage, path: str, on_conflict: OnConflict = FAIL) -> Manifest:
        """Do what an import does, from the first look to the removal of the staging area."""
        plan = self.plan(path)
        await storage.open_staging(self.task_id)
        try:
            await storage.check_conflicts(plan, on_conflict)
            present = [file.path for file in await storage.present_files(plan)]
            await self.stage(storage, path, *present)
            return await storage.publish(plan, self.staged(*present), on_conflict)
        finally:
            await (await storage.open_staging(self.task_id)).discard()


def look(root: Path) -> dict[str, object]:
    """Return everything below a folder but staging: bytes of files, targets of links, kinds of others.

    A manifest comes without its time, which is all that two publishes of one import may differ in.
    """
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        if folder == str(root) and ".staging" in folders:
            folders.remove(".staging")
        for name in [*folders, *files]:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            key = str(path.relative_to(root))
            if stat.S_ISLNK(mode):
                found[key] = ("link", str(path.readlink()))
            elif stat.S_ISDIR(mode):
                found[key] = "folder"
            elif stat.S_ISREG(mode):
                found[key] = _content(path)
            else:
                found[key] = "other"
    return found


def _content(path: Path) -> object:
    if path.parent.name != ".stowage":
        return path.read_bytes()
    try:
        return {key: value for key, value in json.loads(path.read_bytes()).items() if key != "imported_at"}
    except ValueError:
        return path.read_bytes()


def modes(root: Path) -> dict[str, int]:
    """Return the permission bits of everything below a folder, by name."""
    return {path.name: stat.S_IMODE(path.lstat().st_mode) for path in root.rglob("*")}


def put(root: Path, files: Mapping[str, bytes]) -> None:
    """Write files as the user does."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
