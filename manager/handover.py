"""What storage proxies are told of the registries and storages that administrators entered.

A proxy gets everything that concerns it in one piece, secrets included, and works with it at once: on each change,
and whenever the digest that it names is not the one wanted (it lost its database, or was away).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import undefer

from manager.db import Database
from manager.models import (
    ArtifactRegistry,
    ArtifactRegistryType,
    ArtifactStorage,
    ArtifactStorageType,
    StorageNamespace,
)
from manager.vault import Vault
from proxy_client import wire
from proxy_client.client import StorageProxyClient
from proxy_client.errors import Conflict, StowageError, Unavailable

log = structlog.get_logger()

R = TypeVar("R")
T = TypeVar("T")

# Any number for the advisory locks of this kind: "hand" in ASCII.
_HANDING_OVER = 0x68616E64
# Seconds that a request waits for a proxy to take over what was entered; the reconciler repeats it.
_DEADLINE = 5.0
_CHECK_DEADLINE = 25.0


def storage_name(storage: str, namespace: str | None = None) -> str:
    """Return by which name a proxy knows a storage, or a namespace of it."""
    return storage if namespace is None else f"{storage}.{namespace}"


class Handover:
    """Brings each storage proxy what was entered for it."""

    def __init__(self, database: Database, vault: Vault, proxies: Mapping[str, StorageProxyClient]) -> None:
        self._database = database
        self._vault = vault
        self._proxies = proxies

    def proxy(self, name: str, *, field: str) -> StorageProxyClient:
        """Return a proxy of the settings. Raises `Conflict` that names the known ones."""
        if (client := self._proxies.get(name)) is None:
            known = ", ".join(sorted(self._proxies))
            raise Conflict(f"there is no storage proxy {name[:64]!r}; name one of: {known}", field=field)
        return client

    @property
    def all_proxies(self) -> list[str]:
        """The names of all proxies."""
        return sorted(self._proxies)

    async def check(self, proxy: str, asked: wire.ConfigurationCheck, fields: Mapping[str, str]) -> None:
        """Let a proxy try what is to be entered. Raises what stands in the way, as a fault of the named input."""
        client = self._proxies[proxy]
        try:
            async with asyncio.timeout(_CHECK_DEADLINE):
                await client.check_configuration(asked)
        except TimeoutError as exc:
            raise Unavailable(f"storage proxy {proxy} could not try it in time; try again later") from exc
        except StowageError as exc:
            if isinstance(exc, Unavailable):
                raise
            if isinstance(exc, Conflict) and exc.field == "name":
                raise Conflict(exc.message, field="input.name") from exc
            field = fields.get(exc.field or "", fields[""])
            raise type(exc)(f"the connection was tried and failed: {exc.message}", field=field) from exc

    async def announce(self, proxies: Iterable[str]) -> None:
        """Bring proxies what is wanted now, for some seconds; what is not taken is left to the reconciler."""

        async def one(name: str) -> None:
            if (client := self._proxies.get(name)) is None:
                return
            try:
                async with asyncio.timeout(_DEADLINE):
                    await self.bring(client)
            except (TimeoutError, StowageError) as exc:
                reason = exc.message if isinstance(exc, StowageError) else "it is slow to answer"
                log.warning("configuration left to the reconciler", proxy=name, reason=reason)

        await asyncio.gather(*(one(name) for name in set(proxies)))

    async def bring(self, client: StorageProxyClient) -> bool:
        """Bring one proxy what it has not got; returns whether there was something. May be repeated.

        Several processes do it one after the other, each with what the tables hold then: an older state never
        replaces a newer one. Raises what the proxy answers, and `Unavailable`.
        """
        async with self._database.connection() as connection:
            await connection.execute(select(func.pg_advisory_lock(_HANDING_OVER, func.hashtext(client.name))))
            wanted = await self.wanted(client.name)
            if (await client.configuration()).digest == wanted.digest:
                return False
            await client.put_configuration(wanted)
        log.info("configuration handed over", proxy=client.name, digest=wanted.digest[:12])
        return True

    async def wanted(self, proxy: str) -> wire.ProxyConfiguration:
        """Return everything that was entered for a proxy, in the order of names; what cannot be decrypted is left out."""
        async with self._database.read() as session:
            registries = await session.scalars(
                select(ArtifactRegistry)
                .where(
                    ArtifactRegistry.declared.is_(False),
                    ArtifactRegistry.deleted_at.is_(None),
                    ArtifactRegistry.type == ArtifactRegistryType.HUGGINGFACE,
                )
                .options(undefer(ArtifactRegistry.sealed))
                .order_by(ArtifactRegistry.name)
            )
            storages = await session.execute(
                select(ArtifactStorage, StorageNamespace.namespace)
                .join(StorageNamespace, isouter=True)
                .where(ArtifactStorage.proxy == proxy)
                .options(undefer(ArtifactStorage.sealed))
                .order_by(ArtifactStorage.name, StorageNamespace.namespace)
            )
            rows = [(row[0], row[1]) for row in storages]
            found = registries.all()
        return wire.ProxyConfiguration(
            registries=[
                told for registry in found if (told := self._guarded(self._registry, registry)) is not None
            ],
            artifact_storages=self._storages(rows),
        )

    def _storages(
        self, rows: Sequence[tuple[ArtifactStorage, str | None]]
    ) -> list[wire.ArtifactStorageConfiguration]:
        told: dict[str, wire.ArtifactStorageConfiguration] = {}
        for storage, namespace in rows:
            if storage.type is ArtifactStorageType.VFS:
                told[storage.name] = vfs_configuration(storage, None)
                if namespace is not None:
                    within = vfs_configuration(storage, namespace)
                    told[within.name] = within
            elif namespace is not None:
                found = self._guarded(
                    lambda row: self.object_configuration(row[0], row[1]), (storage, namespace)
                )
                if found is not None:
                    told[found.name] = found
        return [told[name] for name in sorted(told)]

    def _registry(self, row: ArtifactRegistry) -> wire.RegistryConfiguration:
        return wire.RegistryConfiguration(
            name=row.name, url=row.url, token=self._vault.open(row.id, row.sealed).get("token")
        )

    def object_configuration(
        self, row: ArtifactStorage, namespace: str | None
    ) -> wire.ObjectStorageConfiguration:
        """Return how a proxy reaches an object storage, with its secrets."""
        secrets = self._vault.open(row.id, row.sealed)
        return wire.ObjectStorageConfiguration(
            name=storage_name(row.name, namespace),
            endpoint=row.endpoint or "",
            region=row.region or "",
            bucket=namespace,
            access_key=secrets["access_key"],
            secret_key=secrets["secret_key"],
        )

    @staticmethod
    def _guarded(make: Callable[[R], T], row: R) -> T | None:
        # One row whose key is lost must not keep the others from the proxy.
        try:
            return make(row)
        except StowageError as exc:
            log.warning("left out of a proxy's configuration", reason=exc.message)
            return None


def vfs_configuration(row: ArtifactStorage, namespace: str | None) -> wire.VFSStorageConfiguration:
    """Return where a proxy finds a VFS storage."""
    base = (row.base_path or "").rstrip("/")
    return wire.VFSStorageConfiguration(
        name=storage_name(row.name, namespace), base_path=base if namespace is None else f"{base}/{namespace}"
    )
