"""What the manager's tests share: rows to begin with, and a look at all rows."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select, text

from manager.auth import Caller
from manager.db import Database
from manager.imports import ArtifactRevisionService
from manager.models import (
    Artifact,
    ArtifactAvailability,
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactRevision,
    ArtifactStatus,
    Base,
    HostPermission,
    ImportTask,
    User,
    UserRole,
    VFolder,
    VFolderOwnershipType,
    VFolderStatus,
)
from manager.settings import Settings, load_settings
from tests.manager.stand_in import StandInProxy

SETTINGS = """
[manager]
database-file = "{directory}/database"
key-file = "{directory}/key"

[reservoir]
proxy = "near"
download = "scratch"
verify = "scratch"
archive = "archive"

[artifact-registry]
default = "hub"
proxy = "near"

[artifact-registries.hub]
url = "https://hub.example"

[vfolder]
default-host = "near:volume1"

[reconciler]
order-interval = 0.05
reconnect-delay = 0.05
silence-limit = 0.5
"""


def settings_in(directory: Path, secrets: Mapping[str, str], *, without: str = "") -> Settings:
    """Write a configuration with a proxy for each secret, and read it; `without` names a section to leave out."""
    sections = SETTINGS.format(directory=directory).split("\n\n")
    chosen = [
        section for section in sections if not without or not section.strip().startswith(f"[{without}]")
    ]
    for name, secret in secrets.items():
        (directory / f"{name}.secret").write_text(secret)
        url = "http://127.0.0.1:1"
        chosen.append(f'[storage-proxies.{name}]\nurl = "{url}"\nsecret-file = "{directory}/{name}.secret"')
    (directory / "key").write_text("k" * 32)
    file = directory / "manager.toml"
    file.write_text("\n\n".join(chosen))
    return load_settings(file)


def commit_of(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class World:
    """An administrator, two users, a registry with one model, and a folder of the first user's."""

    def __init__(self, database: Database, settings: Settings, stand_ins: dict[str, StandInProxy]) -> None:
        self.database = database
        self.settings = settings
        self.stand_ins = stand_ins
        self.near = stand_ins["near"]
        self.far = stand_ins["far"]
        self.proxies = {name: proxy.client for name, proxy in stand_ins.items()}

    async def populated(self) -> "World":
        self.admin = await self.user("admin@example.org", UserRole.ADMIN)
        self.user_a = await self.user("a@example.org")
        self.user_b = await self.user("b@example.org")
        self.hub = ArtifactRegistry(
            id=uuid4(),
            name="hub",
            type=ArtifactRegistryType.HUGGINGFACE,
            url="https://hub.example",
            declared=True,
        )
        everybody = ["create-vfolder", "upload-file", "download-file", "delete-vfolder"]
        await self.add(
            self.hub,
            *(HostPermission(host=f"{name}:volume1", permissions=everybody) for name in self.stand_ins),
        )
        self.revision = await self.make_revision("org/model", "main")
        self.folder = await self.make_folder(self.user_a, "mine")
        return self

    def service(self, settings: Settings | None = None) -> ArtifactRevisionService:
        return ArtifactRevisionService(self.database, settings or self.settings, self.proxies)

    async def add(self, *rows: Base) -> None:
        async with self.database.begin() as session:
            session.add_all(rows)

    async def user(self, email: str, role: UserRole = UserRole.USER) -> Caller:
        row = User(id=uuid4(), email=email, role=role)
        await self.add(row)
        return Caller(row.id, email, role, f"request-of-{email.partition('@')[0]}")

    async def make_revision(
        self,
        name: str,
        version: str,
        *,
        registry: ArtifactRegistry | None = None,
        availability: ArtifactAvailability = ArtifactAvailability.ALIVE,
        status: ArtifactStatus = ArtifactStatus.SCANNED,
        stored_commit: str | None = None,
    ) -> UUID:
        origin = registry or self.hub
        async with self.database.begin() as session:
            artifact = await session.scalar(
                select(Artifact).where(Artifact.name == name, Artifact.registry_id == origin.id)
            )
            if artifact is None:
                artifact = Artifact(id=uuid4(), registry_id=origin.id, name=name, availability=availability)
                session.add(artifact)
                await session.flush()
            revision = ArtifactRevision(
                id=uuid4(),
                artifact_id=artifact.id,
                version=version,
                digest=commit_of(f"{name}@{version}"),
                size=1000,
                status=status,
                stored_commit=stored_commit,
            )
            session.add(revision)
        return revision.id

    async def make_folder(
        self,
        owner: Caller | None,
        name: str,
        *,
        host: str = "near:volume1",
        status: VFolderStatus = VFolderStatus.READY,
        project_id: UUID | None = None,
        unmanaged_path: str | None = None,
    ) -> UUID:
        folder = VFolder(
            id=uuid4(),
            name=name,
            host=host,
            ownership_type=VFolderOwnershipType.USER if owner else VFolderOwnershipType.GROUP,
            user_id=owner.user_id if owner else None,
            project_id=project_id,
            status=status,
            unmanaged_path=unmanaged_path,
        )
        await self.add(folder)
        return folder.id

    async def task(self, task_id: UUID) -> ImportTask:
        async with self.database.read() as session:
            return await session.get_one(ImportTask, task_id)

    async def revision_row(self, revision_id: UUID) -> ArtifactRevision:
        async with self.database.read() as session:
            return await session.get_one(ArtifactRevision, revision_id)

    async def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        async with self.database.read() as session:
            return {
                table.name: sorted(map(tuple, await session.execute(select(table))), key=str)
                for table in Base.metadata.sorted_tables
            }

    async def execute(self, statement: str, **values: Any) -> None:
        async with self.database.begin() as session:
            await session.execute(text(statement), values)
