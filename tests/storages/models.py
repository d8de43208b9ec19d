"""Models to import, and a look at what lies in a folder."""

import hashlib
import json
import os
import stat
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from proxy_client.wire import OnConflict
from storage_proxy.storages.base import (
    AbstractStorage,
    Digests,
    ImportPlan,
    Manifest,
    ManifestFile,
    PlannedFile,
)

FAIL, OVERWRITE = OnConflict.FAIL, OnConflict.OVERWRITE


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests_of(data: bytes) -> Digests:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return Digests(len(data), sha256(data), blob)


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@dataclass
class Storage:
    """A storage under test and where its visible files lie."""

    storage: AbstractStorage
    root: Path
    staging: Path


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
                PlannedFile(path=name, size=len(data), sha256=sha256(data))
                if number % 2
                else PlannedFile(path=name, size=len(data), blob_id=digests_of(data).blob_id)
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
        """Do what DOWNLOAD does."""
        plan = self.plan(path)
        staging = await storage.open_staging(self.task_id)
        await staging.save_plan(plan)
        for name, data in self.files.items():
            if name not in without:
                async with staging.open_writer(name, len(data)) as writer:
                    await writer.write(data)
                    await writer.finish()

    async def bring(self, storage: AbstractStorage, path: str, on_conflict: OnConflict = FAIL) -> Manifest:
        """Do what an import does, from the first look to the removal of the staging area."""
        plan = self.plan(path)
        staging = await storage.open_staging(self.task_id)
        try:
            await storage.check_conflicts(plan, on_conflict)
            present = [file.path for file in await storage.present_files(plan)]
            await self.stage(storage, path, *present)
            return await storage.publish(plan, self.staged(*present), on_conflict)
        finally:
            await staging.discard()


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
