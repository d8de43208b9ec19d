"""The catalog: what a registry offers, as it was when somebody scanned it."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import and_, case, or_, select
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import contains_eager, joinedload

from manager.access import require_admin
from manager.audit import audit
from manager.auth import Caller
from manager.db import Database, any_of, storable
from manager.models import (
    Artifact,
    ArtifactAvailability,
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactRevision,
    ArtifactStatus,
    ArtifactType,
    utc_now,
)
from manager.registries import default_registry, scanning_proxy
from manager.settings import Settings
from proxy_client import paths, wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import (
    BadRequest,
    Conflict,
    NotFound,
    SourceInvalid,
    SourceNotFound,
    UnsupportedRegistry,
)

MOST_MODELS = 100

LONGEST_DESCRIPTION = 10_000

_MODELS_AT_ONCE = 8
# Models, and revisions of one model, whose size and readme a request waits for; those of more follow by themselves.
_DESCRIBED_AT_ONCE = 4
_REVISIONS_AT_ONCE = 8
_LONGEST_VERSION = 255
# PostgreSQL takes 65,535 parameters in a statement, asyncpg 32,767.
_ROWS_A_STATEMENT = 1000
_EXTRA = {"downloads", "likes", "last_modified", "tags"}


class Catalog:
    """Scans registries through the storage proxy that the settings name; only administrators may.

    A scan writes all that it found or nothing, and may be repeated: what was imported stays as it is.
    """

    def __init__(
        self, database: Database, settings: Settings, proxies: Mapping[str, StorageProxyClient]
    ) -> None:
        self._database = database
        self._settings = settings
        self._proxies = proxies

    async def scan_artifacts(
        self,
        caller: Caller,
        *,
        registry_id: UUID | None,
        limit: int,
        artifact_type: ArtifactType | None,
        search: str | None,
    ) -> list[Artifact]:
        """Search a registry, the default one where `registry_id` is None, and keep what it finds, most downloaded first.

        Returns at most `limit` artifacts, in the registry's order, with their registry loaded. A model that
        the registry lists but does not show is left out. Size and readme of the revisions are filled for a few models,
        and follow for more. Raises a `SourceError` where the registry fails.
        """
        await require_admin(caller)
        if not 1 <= limit <= MOST_MODELS:
            raise BadRequest(f"limit is {limit}; choose 1 to {MOST_MODELS}", field="input.limit")
        registry, client = await self._registry(registry_id)
        if artifact_type not in {None, ArtifactType.MODEL}:
            raise UnsupportedRegistry(
                f"the registry {registry.name} offers models only; leave out the type",
                field="input.artifactType",
            )
        hits = await client.search_models(registry.name, search=search or None, limit=limit, sort="downloads")
        at_once = len(hits) <= _DESCRIBED_AT_ONCE
        gate = asyncio.Semaphore(_MODELS_AT_ONCE)

        async def look(model_id: str) -> wire.RegistryModel | None:
            async with gate:
                try:
                    return await look_up(client, registry.name, model_id, None, at_once=at_once)
                except SourceNotFound:
                    return None

        found = await _all_of(look(hit.model_id) for hit in hits[:limit])
        models = [model for model in found if model is not None]
        async with self._database.begin() as session:
            ids = await keep_models(session, registry, models)
            audit(
                session, caller, "artifact.scan", registry.name, {"search": search, "artifacts": len(models)}
            )
            artifacts = await session.scalars(
                select(Artifact)
                .options(joinedload(Artifact.origin))
                .where(Artifact.id == any_of(ids.values()))
                .execution_options(populate_existing=True)
            )
            by_id = {artifact.id: artifact for artifact in artifacts}
        return [by_id[artifact_id] for artifact_id in dict.fromkeys(ids[model.model_id] for model in models)]

    async def scan_models(
        self, caller: Caller, targets: list[tuple[str, str | None]], registry_id: UUID | None
    ) -> list[ArtifactRevision]:
        """Look models up by name, each with one revision or (None) with all its branches and tags.

        Returns the revisions in the order of the targets, each once, with artifact and registry loaded.
        Raises a `SourceError` where the registry fails or has no such model or revision.
        """
        await require_admin(caller)
        _check_targets(targets)
        registry, client = await self._registry(registry_id)
        gate = asyncio.Semaphore(_MODELS_AT_ONCE)
        at_once = len(targets) <= _DESCRIBED_AT_ONCE

        async def look(index: int, model_id: str, revision: str | None) -> wire.RegistryModel:
            async with gate:
                try:
                    return await look_up(client, registry.name, model_id, revision, at_once=at_once)
                except SourceNotFound as exc:
                    raise SourceNotFound(exc.message, field=f"input.models[{index}]") from exc

        models = await _all_of(
            look(index, model_id, revision) for index, (model_id, revision) in enumerate(targets)
        )
        async with self._database.begin() as session:
            ids = await keep_models(session, registry, models)
            names = [model_id for model_id, _ in targets]
            audit(session, caller, "artifact.scan", registry.name, {"models": names})
            rows = await session.scalars(
                select(ArtifactRevision)
                .join(ArtifactRevision.artifact)
                .join(Artifact.origin)
                .options(contains_eager(ArtifactRevision.artifact).contains_eager(Artifact.origin))
                .where(
                    Artifact.id == any_of(ids.values()),
                    ArtifactRevision.version.in_(
                        {found.name for model in models for found in model.revisions}
                    ),
                )
                .execution_options(populate_existing=True)
            )
            by_name = {(row.artifact_id, row.version): row for row in rows}
        asked = dict.fromkeys(
            (ids[model.model_id], found.name) for model in models for found in model.revisions
        )
        return [by_name[key] for key in asked]

    async def update_artifact(
        self, caller: Caller, artifact_id: UUID, *, readonly: bool | None, description: str | None
    ) -> Artifact:
        """Change what is given; a description of an administrator's outlives scans, an empty one gives it up."""
        await require_admin(caller)
        if description is not None and len(description) > LONGEST_DESCRIPTION:
            raise BadRequest(
                f"the description is longer than {LONGEST_DESCRIPTION} characters; shorten it",
                field="input.description",
            )
        async with self._database.begin() as session:
            (artifact,) = await self._artifacts(session, [artifact_id], "input.artifactId")
            if readonly is not None:
                artifact.readonly = readonly
            if description is not None:
                artifact.description = storable(description) or None
                artifact.described = bool(description)
            artifact.updated_at = utc_now()
            changes = {"readonly": readonly, "description": description is not None}
            audit(session, caller, "artifact.update", str(artifact_id), changes)
        return artifact

    async def delete_artifacts(self, caller: Caller, artifact_ids: Sequence[UUID]) -> list[Artifact]:
        """Take artifacts out of use: nothing of them is imported until they are restored. May be repeated.

        What is stored or being imported stays as it is. Returns them in the order asked for. Raises `NotFound`.
        """
        return await self._set_availability(caller, artifact_ids, ArtifactAvailability.DELETED)

    async def restore_artifacts(self, caller: Caller, artifact_ids: Sequence[UUID]) -> list[Artifact]:
        """Take deleted artifacts into use again; may be repeated. Raises `NotFound`, and `Conflict` without a registry."""
        return await self._set_availability(caller, artifact_ids, ArtifactAvailability.ALIVE)

    async def _set_availability(
        self, caller: Caller, artifact_ids: Sequence[UUID], availability: ArtifactAvailability
    ) -> list[Artifact]:
        await require_admin(caller)
        if not 1 <= len(artifact_ids) <= MOST_MODELS:
            raise BadRequest(
                f"these are {len(artifact_ids)} artifacts; name 1 to {MOST_MODELS}", field="input.artifactIds"
            )
        async with self._database.begin() as session:
            artifacts = await self._artifacts(session, artifact_ids, "input.artifactIds[{}]")
            changed = [artifact for artifact in artifacts if artifact.availability is not availability]
            for index, artifact in enumerate(artifacts):
                if availability is ArtifactAvailability.ALIVE and artifact.origin.deleted_at is not None:
                    raise Conflict(
                        f"the registry {artifact.origin.name} of this artifact was deleted; enter it again and scan it",
                        field=f"input.artifactIds[{index}]",
                    )
            for artifact in changed:
                artifact.availability = availability
                artifact.updated_at = utc_now()
            if changed:
                verb = "delete" if availability is ArtifactAvailability.DELETED else "restore"
                names = sorted({artifact.name for artifact in changed})
                audit(session, caller, f"artifact.{verb}", "catalogue", {"artifacts": names})
        return artifacts

    async def _artifacts(
        self, session: AsyncSession, artifact_ids: Sequence[UUID], field: str
    ) -> list[Artifact]:
        rows = await session.scalars(
            select(Artifact)
            .join(Artifact.origin)
            .options(contains_eager(Artifact.origin))
            .where(Artifact.id == any_of(artifact_ids))
            .order_by(Artifact.id)
            .with_for_update(of=Artifact, key_share=True)
        )
        found = {row.id: row for row in rows}
        for index, artifact_id in enumerate(artifact_ids):
            if artifact_id not in found:
                raise NotFound("there is no such artifact; check its id", field=field.format(index))
        return [found[artifact_id] for artifact_id in artifact_ids]

    async def _registry(self, registry_id: UUID | None) -> tuple[ArtifactRegistry, StorageProxyClient]:
        proxy = scanning_proxy(self._settings)
        async with self._database.read() as session:
            if registry_id is None:
                registry = await default_registry(session, self._settings)
            else:
                registry = await session.get(ArtifactRegistry, registry_id)
        if proxy is None or (registry is None and registry_id is None):
            raise Conflict(
                "scanning is not configured; ask the operator for the section [artifact-registry] "
                "of the manager's configuration, or name a registry"
            )
        if registry is None or registry.deleted_at is not None:
            raise NotFound("there is no such artifact registry", field="input.registryId")
        if registry.type is not ArtifactRegistryType.HUGGINGFACE:
            raise UnsupportedRegistry(
                f"a registry of type {registry.type} cannot be scanned; name another one",
                field="input.registryId",
            )
        return registry, self._proxies[proxy]


async def look_up(
    client: StorageProxyClient, registry: str, model_id: str, revision: str | None, *, at_once: bool
) -> wire.RegistryModel:
    """Describe a model; `at_once` with size and readme, unless it has many revisions."""
    if at_once and revision is not None:
        return await client.get_model(registry, model_id, revision)
    model = await client.get_model(registry, model_id, revision, details=False)
    described = all(found.described for found in model.revisions)
    if at_once and not described and len(model.revisions) <= _REVISIONS_AT_ONCE:
        return await client.get_model(registry, model_id)
    return model


def _check_targets(targets: Sequence[tuple[str, str | None]]) -> None:
    if not 1 <= len(targets) <= MOST_MODELS:
        raise BadRequest(
            f"these are {len(targets)} models; name 1 to {MOST_MODELS} in one request", field="input.models"
        )
    for index, (model_id, revision) in enumerate(targets):
        if re.fullmatch(paths.MODEL_ID_PATTERN, model_id) is None:
            raise BadRequest(
                "this is not a model's name; write ORG/NAME", field=f"input.models[{index}].modelId"
            )
        if revision is not None and not _is_version(revision):
            raise BadRequest(
                "this is not a revision; name a branch, tag or commit, or leave it out for all of them",
                field=f"input.models[{index}].revision",
            )


def _is_version(text: str) -> bool:
    """Whether the name can stand in a URL and name a folder as it is. No name that git allows is refused."""
    return (
        len(text) <= _LONGEST_VERSION
        and text.isprintable()
        and text == text.strip()
        and "\\" not in text
        and all(part and not part.startswith(".") for part in text.split("/"))
    )


async def _all_of(looks: Iterable[Any]) -> list[Any]:
    """Await all; the first error ends the others and is raised alone."""
    tasks = [asyncio.ensure_future(look) for look in looks]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def keep_models(
    session: AsyncSession, registry: ArtifactRegistry, models: Sequence[wire.RegistryModel]
) -> dict[str, UUID]:
    """Write models and their revisions; returns the artifacts' ids by name.

    A revision that is known keeps its status and its stored commit; digest, size and readme move. One that came
    without size and readme is due for them, unless they are known for this commit.
    """
    if not models:
        return {}
    now = utc_now()
    # In the order of names, so that two scans never wait for each other.
    artifacts = insert(Artifact).values(
        [
            {
                "id": uuid4(),
                "registry_id": registry.id,
                "name": name,
                "type": ArtifactType.MODEL,
                "description": storable(model.description),
                "extra": storable(model.model_dump(mode="json", include=_EXTRA)),
                "scanned_at": now,
                "updated_at": now,
            }
            for name, model in sorted({model.model_id: model for model in models}.items())
        ]
    )
    kept = await session.execute(
        artifacts.on_conflict_do_update(
            index_elements=[Artifact.registry_id, Artifact.name],
            set_={
                "description": case(
                    (Artifact.described, Artifact.description), else_=artifacts.excluded.description
                ),
                "extra": artifacts.excluded.extra,
                "scanned_at": now,
                "updated_at": now,
            },
        ).returning(Artifact.name, Artifact.id)
    )
    ids: dict[str, UUID] = dict(kept.all())
    found = {(ids[model.model_id], one.name): one for model in models for one in model.revisions}
    for one in found.values():
        if not _is_version(one.name) or re.fullmatch(wire.COMMIT_PATTERN, one.commit) is None:
            raise SourceInvalid(f"the registry {registry.name} names a revision or commit that is none")
    rows = [
        {
            "id": uuid4(),
            "artifact_id": artifact_id,
            "version": version,
            "status": ArtifactStatus.SCANNED,
            "digest": one.commit,
            "size": one.size,
            "readme": storable(one.readme),
            "details_due_at": None if one.described else now,
            "created_at": now,
            "updated_at": now,
        }
        for (artifact_id, version), one in sorted(found.items(), key=lambda item: item[0])
    ]
    for start in range(0, len(rows), _ROWS_A_STATEMENT):
        await session.execute(_revisions(rows[start : start + _ROWS_A_STATEMENT]))
    return ids


def _revisions(rows: list[dict[str, Any]]) -> Insert:
    revisions = insert(ArtifactRevision).values(rows)
    new, known = revisions.excluded, ArtifactRevision.__table__.c
    same = and_(new.details_due_at.is_not(None), known.digest.is_not_distinct_from(new.digest))
    moving = {
        name: case((same, known[name]), else_=new[name])
        for name in ("digest", "size", "readme", "details_due_at")
    }
    return revisions.on_conflict_do_update(
        index_elements=[ArtifactRevision.artifact_id, ArtifactRevision.version],
        set_=moving | {"updated_at": new.updated_at},
        where=or_(*(known[name].is_distinct_from(value) for name, value in moving.items())),
    )
