"""The registries that artifacts come from: those of the settings, and those that administrators enter."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from pydantic import ValidationError
from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database
from manager.handover import Handover
from manager.models import (
    Artifact,
    ArtifactAvailability,
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactRevision,
    ArtifactType,
    ImportTask,
    utc_now,
)
from manager.settings import Settings
from manager.vault import Vault
from proxy_client import wire
from proxy_client.errors import BadRequest, Conflict, NotFound

# How the schema calls what the rows call `url`.
_URL_FIELDS = {
    ArtifactRegistryType.HUGGINGFACE: "input.url",
    ArtifactRegistryType.RESERVOIR: "input.endpoint",
}
_API_VERSION = re.compile(r"[A-Za-z0-9._-]{1,32}")
LONGEST_SECRET = 4096


@dataclass(frozen=True)
class RegistryChanges:
    """What is entered of a registry; None leaves what is there. An empty secret takes it away."""

    name: str | None = None
    url: str | None = None
    api_version: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


async def declare_registries(session: AsyncSession, settings: Settings) -> None:
    """Write the registries of the settings; one that is no longer among them is the administrators' from now on."""
    # One of an administrator's with the same name becomes the operator's: the proxies' own file wins as well.
    for name, registry in settings.artifact_registries.items():
        values = {
            "type": ArtifactRegistryType(registry.type.upper()),
            "url": registry.url,
            "declared": True,
            "sealed": None,
            "has_secrets": False,
        }
        await session.execute(
            insert(ArtifactRegistry)
            .values(id=uuid4(), name=name, **values)
            .on_conflict_do_update(
                index_elements=[ArtifactRegistry.name],
                index_where=ArtifactRegistry.deleted_at.is_(None),
                set_=values,
            )
        )
    await session.execute(
        update(ArtifactRegistry)
        .where(
            ArtifactRegistry.declared.is_(True),
            ArtifactRegistry.name.not_in(list(settings.artifact_registries)),
        )
        .values(declared=False)
    )


def scanning_proxy(settings: Settings) -> str | None:
    """Return the proxy that asks registries: the one configured for it, or the only one there is."""
    if settings.artifact_registry is not None:
        return settings.artifact_registry.proxy
    return next(iter(settings.storage_proxies)) if len(settings.storage_proxies) == 1 else None


async def default_registry(session: AsyncSession, settings: Settings) -> ArtifactRegistry | None:
    """Return the registry of a scan that names none: the one configured, or the only one that models come from."""
    models = select(ArtifactRegistry).where(ArtifactRegistry.deleted_at.is_(None))
    if settings.artifact_registry is not None:
        named = models.where(ArtifactRegistry.name == settings.artifact_registry.default)
        return (await session.scalars(named)).one_or_none()
    usable = models.where(ArtifactRegistry.type == ArtifactRegistryType.HUGGINGFACE).limit(2)
    found = (await session.scalars(usable)).all()
    return found[0] if len(found) == 1 else None


class Registries:
    """Makes, changes and deletes registries; only administrators may."""

    def __init__(self, database: Database, settings: Settings, vault: Vault, handover: Handover) -> None:
        self._database = database
        self._settings = settings
        self._vault = vault
        self._handover = handover

    async def default(self, artifact_type: ArtifactType) -> ArtifactRegistry | None:
        """Return the registry that artifacts of a type come from unless another one is named; models only have one."""
        if artifact_type is not ArtifactType.MODEL:
            return None
        async with self._database.read() as session:
            return await default_registry(session, self._settings)

    async def create(
        self, caller: Caller, kind: ArtifactRegistryType, asked: RegistryChanges
    ) -> ArtifactRegistry:
        """Enter a registry and hand it over to all proxies; from then on models can be scanned and imported.

        The connection is tried first, by the proxy that scans. Raises `Conflict` for a name that is taken, and
        what the registry answered where it cannot be used; then nothing is kept.
        """
        await require_admin(caller)
        _check(kind, asked)
        row = ArtifactRegistry(id=uuid4(), name=asked.name, type=kind, url=asked.url, declared=False)
        secrets = self._enter(row, asked, {})
        await self._try(row, secrets)
        try:
            async with self._database.begin() as session:
                session.add(row)
                await session.flush()
                audit(session, caller, "registry.create", str(row.id), _told(row))
        except IntegrityError as exc:
            raise _taken(row.name) from exc
        await self._handover.announce(self._handover.all_proxies)
        return row

    async def update(
        self, caller: Caller, kind: ArtifactRegistryType, registry_id: UUID, asked: RegistryChanges
    ) -> ArtifactRegistry:
        """Change a registry; what is not given stays, secrets too.

        Raises `NotFound`, `Conflict` for one of the settings or, where the name is to change, one that open imports
        read from, and what the registry answered to a try with the new values.
        """
        await require_admin(caller)
        _check(kind, asked, partly=True)
        async with self._database.read() as session:
            row = await self._load(session, kind, registry_id)
            session.expunge(row)
        secrets = self._enter(row, asked, self._vault.open(row.id, row.sealed))
        await self._try(row, secrets)
        try:
            async with self._database.begin() as session:
                kept = await self._load(session, kind, registry_id, lock=True)
                if asked.name not in {None, kept.name} and await _has_open_imports(session, registry_id):
                    raise Conflict(
                        "imports from this registry are running by its name; wait for them, then rename it",
                        field="input.name",
                    )
                self._enter(kept, asked, self._vault.open(kept.id, kept.sealed))
                audit(session, caller, "registry.update", str(kept.id), _told(kept))
        except IntegrityError as exc:
            raise _taken(asked.name or "") from exc
        await self._handover.announce(self._handover.all_proxies)
        return kept

    async def delete(self, caller: Caller, kind: ArtifactRegistryType, registry_id: UUID) -> UUID:
        """Delete a registry that nothing needs; its name is free again.

        Raises `NotFound`, and `Conflict` for one of the settings, one with artifacts that are not deleted or that
        the artifact storage holds, and one that open imports read from.
        """
        await require_admin(caller)
        async with self._database.begin() as session:
            row = await self._load(session, kind, registry_id, lock=True)
            needed = exists().where(
                Artifact.registry_id == registry_id,
                or_(
                    Artifact.availability == ArtifactAvailability.ALIVE,
                    exists().where(
                        ArtifactRevision.artifact_id == Artifact.id,
                        or_(
                            ArtifactRevision.stored_commit.is_not(None), ArtifactRevision.cleanup.is_not(None)
                        ),
                    ),
                ),
            )
            if await session.scalar(select(needed)) or await _has_open_imports(session, registry_id):
                raise Conflict(
                    "artifacts of this registry are in use; clean their revisions up and delete them first, "
                    "and wait for imports that run",
                    field="input.id",
                )
            row.deleted_at = utc_now()
            row.sealed, row.has_secrets = None, False
            audit(session, caller, "registry.delete", str(row.id), _told(row))
        await self._handover.announce(self._handover.all_proxies)
        return registry_id

    def _enter(
        self, row: ArtifactRegistry, asked: RegistryChanges, present: Mapping[str, str]
    ) -> dict[str, str]:
        """Write what was asked for into the row; returns its secrets, in the clear."""
        row.name = asked.name or row.name
        row.url = asked.url or row.url
        row.api_version = asked.api_version or row.api_version
        secrets = {name: value for name, value in {**present, **asked.secrets}.items() if value}
        if asked.secrets:
            row.sealed = self._vault.close(row.id, secrets) if secrets else None
            row.has_secrets = bool(secrets)
        return secrets

    async def _try(self, row: ArtifactRegistry, secrets: Mapping[str, str]) -> None:
        # What another Stowage answers is nothing that a proxy reads today.
        if row.type is not ArtifactRegistryType.HUGGINGFACE:
            return
        proxy = scanning_proxy(self._settings)
        if proxy is None:
            raise Conflict(
                "no storage proxy is configured to ask registries; ask the operator for the section "
                "[artifact-registry] of the manager's configuration"
            )
        asked = wire.RegistryConfiguration(name=row.name, url=row.url, token=secrets.get("token"))
        fields = {"": _URL_FIELDS[row.type], "token": "input.token"}
        await self._handover.check(proxy, wire.ConfigurationCheck(registry=asked), fields)

    async def _load(
        self, session: AsyncSession, kind: ArtifactRegistryType, registry_id: UUID, *, lock: bool = False
    ) -> ArtifactRegistry:
        wanted = (
            select(ArtifactRegistry)
            .where(
                ArtifactRegistry.id == registry_id,
                ArtifactRegistry.type == kind,
                ArtifactRegistry.deleted_at.is_(None),
            )
            .options(undefer(ArtifactRegistry.sealed))
        )
        row = await session.scalar(wanted.with_for_update() if lock else wanted)
        if row is None:
            raise NotFound(f"there is no such {kind} registry; check its id", field="input.id")
        if row.declared:
            raise Conflict(
                f"the registry {row.name} stands in the manager's configuration; change it there",
                field="input.id",
            )
        return row


def _check(kind: ArtifactRegistryType, asked: RegistryChanges, *, partly: bool = False) -> None:
    if not (partly and asked.name is None) and re.fullmatch(wire.NAME_PATTERN, asked.name or "") is None:
        raise BadRequest(
            "a name has 1 to 64 letters, digits, dots, hyphens or underscores and begins with a letter or digit; "
            "choose another one",
            field="input.name",
        )
    if not (partly and asked.url is None):
        try:
            wire.RegistryConfiguration(name="check", url=asked.url or "")
        except ValidationError as exc:
            raise BadRequest(
                "this is no endpoint; write http(s)://HOST, with a port and a path where they are needed",
                field=_URL_FIELDS[kind],
            ) from exc
    if asked.api_version is not None and _API_VERSION.fullmatch(asked.api_version) is None:
        raise BadRequest("this is no version of an API; write one such as v1", field="input.apiVersion")
    for name, value in asked.secrets.items():
        check_secret(name, value)


def check_secret(name: str, value: str) -> None:
    """Raise `BadRequest` for a secret that no header can carry; its text is not quoted."""
    if len(value) > LONGEST_SECRET or not (value.isascii() and (value == "" or value.isprintable())):
        head, *rest = name.split("_")
        raise BadRequest(
            f"a secret has printable ASCII characters, {LONGEST_SECRET} at most",
            field=f"input.{head}{''.join(part.title() for part in rest)}",
        )


async def _has_open_imports(session: AsyncSession, registry_id: UUID) -> bool:
    open_imports = (
        select(ImportTask.id)
        .join(ArtifactRevision, ArtifactRevision.id == ImportTask.artifact_revision_id)
        .join(
            Artifact, and_(Artifact.id == ArtifactRevision.artifact_id, Artifact.registry_id == registry_id)
        )
        .where(ImportTask.finished_at.is_(None))
    )
    return await session.scalar(open_imports.limit(1)) is not None


def _told(row: ArtifactRegistry) -> dict[str, str]:
    return {"name": row.name, "type": row.type, "url": row.url}


def _taken(name: str) -> Conflict:
    return Conflict(f"there is a registry {name} already; choose another name", field="input.name")
