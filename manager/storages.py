"""The artifact storages that administrators enter: directories of a proxy, object storages, and their namespaces."""

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from pydantic import ValidationError
from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.handover import Handover, storage_name, vfs_configuration
from manager.models import (
    ArtifactRevision,
    ArtifactStorage,
    ArtifactStorageType,
    ImportTask,
    StorageNamespace,
)
from manager.registries import check_secret
from manager.settings import Settings
from manager.vault import Vault
from proxy_client import wire
from proxy_client.errors import BadRequest, Conflict, NotFound

# S3's rules for the name of a bucket, which make a fine directory as well.
_NAMESPACE = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[A-Za-z0-9_-]{1,64}")
_LONGEST_PATH = 1024


@dataclass(frozen=True)
class StorageChanges:
    """What is entered of a storage; None leaves what is there. `host` is the storage proxy."""

    name: str | None = None
    host: str | None = None
    base_path: str | None = None
    endpoint: str | None = None
    region: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


class Storages:
    """Makes, changes and deletes artifact storages and their namespaces; only administrators may."""

    def __init__(self, database: Database, settings: Settings, vault: Vault, handover: Handover) -> None:
        self._database = database
        self._settings = settings
        self._vault = vault
        self._handover = handover

    async def create(
        self, caller: Caller, kind: ArtifactStorageType, asked: StorageChanges
    ) -> ArtifactStorage:
        """Enter a storage and hand it over to its proxy.

        The proxy tries it first. Raises `Conflict` for a name that is taken or a proxy that is not there, and what
        stood in the way of using the storage; then nothing is kept.
        """
        await require_admin(caller)
        _check(kind, asked)
        row = ArtifactStorage(id=uuid4(), type=kind, proxy="", name="")
        secrets = self._enter(row, asked, {})
        async with self._database.read() as session:
            # A try makes the directory; nobody wants one for a name that is taken.
            await self._place_is_free(session, row, [storage_name(row.name)])
        await self._try(row, secrets, None)
        try:
            async with self._database.begin() as session:
                await self._place_is_free(session, row, [storage_name(row.name)])
                session.add(row)
                await session.flush()
                audit(session, caller, "storage.create", str(row.id), _told(row))
        except IntegrityError as exc:
            raise _taken(row.name) from exc
        await self._handover.announce([row.proxy])
        return row

    async def update(
        self, caller: Caller, kind: ArtifactStorageType, storage_id: UUID, asked: StorageChanges
    ) -> ArtifactStorage:
        """Change a storage; what is not given stays, secrets too.

        Raises `NotFound`, `Conflict` where name, proxy or place of a storage in use are to change, and what stood in
        the way of using it with the new values.
        """
        await require_admin(caller)
        _check(kind, asked, partly=True)
        async with self._database.read() as session:
            row = await self._load(session, storage_id, kind)
            before = row.proxy
            session.expunge(row)
        secrets = self._enter(row, asked, self._vault.open(row.id, row.sealed))
        await self._try(row, secrets, None)
        try:
            async with self._database.begin() as session:
                kept = await self._load(session, storage_id, kind, lock=True)
                moving = [
                    name
                    for name, present, new in (
                        ("name", kept.name, asked.name),
                        ("host", kept.proxy, asked.host),
                        ("basePath", kept.base_path, asked.base_path),
                        ("endpoint", kept.endpoint, asked.endpoint),
                    )
                    if new not in {None, present}
                ]
                if moving:
                    await self._require_unused(session, kept, f"input.{moving[0]}")
                self._enter(kept, asked, self._vault.open(kept.id, kept.sealed))
                if moving:
                    names = await _names(session, kept)
                    await self._place_is_free(session, kept, names)
                audit(session, caller, "storage.update", str(kept.id), _told(kept))
        except IntegrityError as exc:
            raise _taken(asked.name or "") from exc
        await self._handover.announce({before, kept.proxy})
        return kept

    async def delete(self, caller: Caller, kind: ArtifactStorageType, storage_id: UUID) -> UUID:
        """Forget a storage that nothing needs, with its namespaces; what lies there is left alone.

        Raises `NotFound`, and `Conflict` for a storage that holds revisions, that open imports go to, or that the
        settings name.
        """
        await require_admin(caller)
        async with self._database.begin() as session:
            row = await self._load(session, storage_id, kind, lock=True)
            await self._require_unused(session, row, "input.id")
            proxy = row.proxy
            audit(session, caller, "storage.delete", str(row.id), _told(row))
            await session.delete(row)
        await self._handover.announce([proxy])
        return storage_id

    async def register_namespace(self, caller: Caller, storage_id: UUID, namespace: str) -> UUID:
        """Add a namespace: artifacts can be imported into `STORAGE.NAMESPACE` from then on. Returns the storage's id.

        The proxy tries it first. One that is there already is answered as if it were new.
        """
        await require_admin(caller)
        if _NAMESPACE.fullmatch(namespace) is None or ".." in namespace:
            raise BadRequest(
                "a namespace has 3 to 63 lower-case letters, digits, dots or hyphens, begins and ends with a letter "
                "or digit, and holds no '..'; choose another one",
                field="input.namespace",
            )
        async with self._database.read() as session:
            row = await self._load(session, storage_id, None, field="input.storageId")
            session.expunge(row)
        await self._try(row, self._vault.open(row.id, row.sealed), namespace)
        async with self._database.begin() as session:
            row = await self._load(session, storage_id, None, field="input.storageId", lock=True)
            there = select(StorageNamespace.id).where(
                StorageNamespace.storage_id == storage_id, StorageNamespace.namespace == namespace
            )
            if await session.scalar(there) is not None:
                return storage_id
            name = storage_name(row.name, namespace)
            if re.fullmatch(wire.NAME_PATTERN, name) is None:
                raise BadRequest(
                    f"{name} is longer than 64 characters, and that is its name at the proxy; choose a shorter one",
                    field="input.namespace",
                )
            await self._name_is_free(session, row, [name], field="input.namespace")
            session.add(StorageNamespace(storage_id=storage_id, namespace=namespace))
            audit(session, caller, "storage.register-namespace", str(row.id), {"namespace": namespace})
            proxy = row.proxy
        await self._handover.announce([proxy])
        return storage_id

    async def unregister_namespace(self, caller: Caller, storage_id: UUID, namespace: str) -> UUID:
        """Forget a namespace that nothing needs; what lies there is left alone. Returns the storage's id.

        Raises `NotFound`, and `Conflict` as `delete` does.
        """
        await require_admin(caller)
        async with self._database.begin() as session:
            row = await self._load(session, storage_id, None, field="input.storageId", lock=True)
            wanted = select(StorageNamespace).where(
                StorageNamespace.storage_id == storage_id, StorageNamespace.namespace == namespace
            )
            if (found := await session.scalar(wanted)) is None:
                raise NotFound("the storage has no such namespace", field="input.namespace")
            names = [storage_name(row.name, namespace)]
            await self._require_unused(session, row, "input.namespace", names)
            proxy = row.proxy
            audit(session, caller, "storage.unregister-namespace", str(row.id), {"namespace": namespace})
            await session.delete(found)
        await self._handover.announce([proxy])
        return storage_id

    def _enter(
        self, row: ArtifactStorage, asked: StorageChanges, present: Mapping[str, str]
    ) -> dict[str, str]:
        """Write what was asked for into the row; returns its secrets, in the clear."""
        row.name = asked.name or row.name
        row.proxy = asked.host or row.proxy
        row.base_path = posixpath.normpath(asked.base_path) if asked.base_path else row.base_path
        row.endpoint = asked.endpoint or row.endpoint
        row.region = asked.region or row.region
        secrets = {**present, **asked.secrets}
        if asked.secrets:
            row.sealed = self._vault.close(row.id, secrets)
        return secrets

    async def _try(self, row: ArtifactStorage, secrets: Mapping[str, str], namespace: str | None) -> None:
        self._handover.proxy(row.proxy, field="input.host")
        asked: wire.VFSStorageConfiguration | wire.ObjectStorageConfiguration
        if row.type is ArtifactStorageType.VFS:
            asked = vfs_configuration(row, namespace)
            fields = {"": "input.basePath"}
        else:
            asked = wire.ObjectStorageConfiguration(
                name=storage_name(row.name),
                endpoint=row.endpoint or "",
                region=row.region or "",
                bucket=namespace,
                access_key=secrets["access_key"],
                secret_key=secrets["secret_key"],
            )
            fields = {
                "": "input.endpoint",
                "access_key": "input.accessKey",
                "secret_key": "input.secretKey",
                "region": "input.region",
            }
        if namespace is not None:
            fields = {"": "input.namespace"}
        await self._handover.check(row.proxy, wire.ConfigurationCheck(artifact_storage=asked), fields)

    async def _load(
        self,
        session: AsyncSession,
        storage_id: UUID,
        kind: ArtifactStorageType | None,
        *,
        field: str = "input.id",
        lock: bool = False,
    ) -> ArtifactStorage:
        wanted = (
            select(ArtifactStorage)
            .where(ArtifactStorage.id == storage_id)
            .options(undefer(ArtifactStorage.sealed))
        )
        if kind is not None:
            wanted = wanted.where(ArtifactStorage.type == kind)
        row = await session.scalar(wanted.with_for_update() if lock else wanted)
        if row is None:
            raise NotFound("there is no such storage; check its id", field=field)
        return row

    async def _require_unused(
        self, session: AsyncSession, row: ArtifactStorage, field: str, names: Iterable[str] | None = None
    ) -> None:
        known = set(await _names(session, row) if names is None else names)
        reservoir = self._settings.reservoir
        if (
            reservoir is not None
            and reservoir.proxy == row.proxy
            and known & {reservoir.download, reservoir.verify, reservoir.archive}
        ):
            raise Conflict(
                "the manager's configuration names this storage in [reservoir]; change it there first",
                field=field,
            )
        places = [
            place.contains({"proxy": row.proxy, "storage_name": name})
            for place in (ArtifactRevision.stored_in, ArtifactRevision.cleanup)
            for name in known
        ]
        holding = select(ArtifactRevision.id).where(or_(*places)).limit(1)
        if await session.scalar(holding) is not None:
            raise Conflict(
                "this storage holds artifact revisions; clean them up first (cleanupArtifactRevisions)",
                field=field,
            )
        going = select(ImportTask.id).where(
            ImportTask.proxy == row.proxy,
            ImportTask.storage_name.in_(known),
            ImportTask.finished_at.is_(None),
        )
        if (task_id := await session.scalar(going.limit(1))) is not None:
            raise Conflict(
                f"the import {task_id} into this storage is not finished; cancel it or wait", field=field
            )

    async def _name_is_free(
        self,
        session: AsyncSession,
        row: ArtifactStorage,
        names: Iterable[str],
        *,
        field: str = "input.name",
    ) -> None:
        """Raise `Conflict` where another storage of the proxy, or a namespace of one, goes by one of the names."""
        others = await session.execute(
            select(ArtifactStorage.name, StorageNamespace.namespace)
            .join(StorageNamespace, isouter=True)
            .where(ArtifactStorage.proxy == row.proxy, ArtifactStorage.id != row.id)
        )
        taken = {
            name for storage, namespace in others for name in (storage, storage_name(storage, namespace))
        }
        for name in names:
            if name in taken:
                raise Conflict(f"there is a storage {name} already; choose another name", field=field)

    async def _place_is_free(self, session: AsyncSession, row: ArtifactStorage, names: Iterable[str]) -> None:
        """Raise `Conflict` where a name is taken, or another storage of the proxy has the directory."""
        await self._name_is_free(session, row, names)
        if row.base_path is None:
            return
        same = select(ArtifactStorage.name).where(
            ArtifactStorage.proxy == row.proxy,
            ArtifactStorage.base_path == row.base_path,
            ArtifactStorage.id != row.id,
        )
        if (other := await session.scalar(same.limit(1))) is not None:
            raise Conflict(
                f"the storage {other} has this directory already; choose another one", field="input.basePath"
            )


async def entered_storages(session: AsyncSession, proxy: str) -> dict[str, ArtifactStorageType]:
    """Return what was entered for a proxy and can be imported into, by the names that it has there."""
    rows = await session.execute(
        select(ArtifactStorage.name, ArtifactStorage.type, StorageNamespace.namespace)
        .join(StorageNamespace, isouter=True)
        .where(ArtifactStorage.proxy == proxy)
    )
    found: dict[str, ArtifactStorageType] = {}
    for name, kind, namespace in rows:
        if kind is ArtifactStorageType.VFS:
            found[name] = kind
        if namespace is not None:
            found[storage_name(name, namespace)] = kind
    return found


async def _names(session: AsyncSession, row: ArtifactStorage) -> list[str]:
    namespaces = await session.scalars(
        select(StorageNamespace.namespace).where(StorageNamespace.storage_id == row.id)
    )
    return [storage_name(row.name), *(storage_name(row.name, namespace) for namespace in namespaces)]


def _check(kind: ArtifactStorageType, asked: StorageChanges, *, partly: bool = False) -> None:
    def given(value: str | None) -> bool:
        return not (partly and value is None)

    if given(asked.name) and re.fullmatch(wire.NAME_PATTERN, asked.name or "") is None:
        raise BadRequest(
            "a name has 1 to 64 letters, digits, dots, hyphens or underscores and begins with a letter or digit; "
            "choose another one",
            field="input.name",
        )
    if kind is ArtifactStorageType.VFS:
        if given(asked.base_path):
            _check_path(asked.base_path or "")
        return
    if given(asked.endpoint):
        try:
            wire.RegistryConfiguration(name="check", url=asked.endpoint or "")
        except ValidationError as exc:
            raise BadRequest(
                "this is no endpoint; write http(s)://HOST, with a port where it is needed",
                field="input.endpoint",
            ) from exc
    if given(asked.region) and _REGION.fullmatch(asked.region or "") is None:
        raise BadRequest("this is no region; write one such as us-east-1", field="input.region")
    for name, value in asked.secrets.items():
        check_secret(name, value)
        if not value:
            raise BadRequest("a key cannot be empty", field=f"input.{name.partition('_')[0]}Key")


def _check_path(path: str) -> None:
    if (
        not path.startswith("/")
        or len(path) > _LONGEST_PATH
        or not path.isprintable()
        or {".", ".."} & set(path.split("/"))
        or posixpath.normpath(path) == "/"
    ):
        raise BadRequest(
            "this is no directory; write an absolute path on the proxy's host, without . and ..",
            field="input.basePath",
        )


def _told(row: ArtifactStorage) -> dict[str, str]:
    return {"name": row.name, "type": row.type, "proxy": row.proxy}


def _taken(name: str) -> Conflict:
    return Conflict(
        f"there is a storage {name} on this proxy already; choose another name", field="input.name"
    )
