"""The registries and artifact storages that administrators entered at the manager, as this proxy works with them.

The manager hands all of them over in one piece, secrets included. It rests in the proxy's tables, encrypted with the
secret that the manager shows. Every process of the proxy looks there before it works with a name, so that an order is
never carried out with an older piece. A name of the proxy's own configuration stays what it is there.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import structlog
from pydantic import ValidationError

from proxy_client.errors import BadRequest, Conflict, StowageError, Unavailable
from proxy_client.sealing import Seal
from proxy_client.wire import (
    ArtifactStorageConfiguration,
    ConfigurationState,
    ObjectStorageConfiguration,
    ProxyConfiguration,
    RegistryConfiguration,
    VFSStorageConfiguration,
)
from storage_proxy.imports.jobs import ImportJobs
from storage_proxy.registries.huggingface import HuggingFaceRegistry
from storage_proxy.settings import ArtifactRegistrySection, S3StorageSection, Settings
from storage_proxy.storages.base import AbstractStorage
from storage_proxy.storages.object import ObjectStorage
from storage_proxy.storages.pool import StoragePool
from storage_proxy.storages.s3_signing import Credentials
from storage_proxy.storages.vfs import VFSStorage
from storage_proxy.volumes.paths import check_path

log = structlog.get_logger()

T = TypeVar("T", RegistryConfiguration, ArtifactStorageConfiguration)

_LAST_PORT = 65535
_ABOUT = "the entered configuration"


class Entered:
    """Keeps what was handed over, and holds `storage_pool` and `registries` to it."""

    def __init__(
        self,
        settings: Settings,
        jobs: ImportJobs,
        storage_pool: StoragePool,
        registries: dict[str, HuggingFaceRegistry],
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._storage_pool = storage_pool
        self._registries = registries
        self._refreshing = asyncio.Lock()
        self._digest: str | None = None
        self._told_registries: dict[str, RegistryConfiguration] = {}
        self._told_storages: dict[str, ArtifactStorageConfiguration] = {}

    async def state(self) -> ConfigurationState:
        """Say which piece this proxy works with; none where what rests cannot be decrypted any more."""
        row = await self._jobs.ask("fetchrow", "SELECT digest, sealed FROM entered")
        return ConfigurationState(
            digest=None if row is None or self._opened(row["sealed"]) is None else row["digest"]
        )

    async def keep(self, configuration: ProxyConfiguration) -> ConfigurationState:
        """Replace what was handed over before, durably; every later `refresh` of any process finds it."""
        sealed = self._seal().close(configuration.model_dump_json(), _ABOUT)
        await self._jobs.ask(
            "execute",
            """INSERT INTO entered (digest, sealed) VALUES ($1, $2)
               ON CONFLICT (the_only) DO UPDATE SET digest = excluded.digest, sealed = excluded.sealed""",
            configuration.digest,
            sealed,
        )
        await self.refresh()
        return ConfigurationState(digest=configuration.digest)

    async def refresh(self) -> None:
        """Work with the newest piece from now on. Imports that run go on with what they began with.

        Raises `Unavailable`.
        """
        async with self._refreshing:
            row = await self._jobs.ask(
                "fetchrow",
                "SELECT digest, sealed FROM entered WHERE digest IS DISTINCT FROM $1",
                self._digest,
            )
            if row is None:
                return
            configuration = self._opened(row["sealed"])
            if configuration is None:
                log.warning("what the manager handed over cannot be decrypted; it has to come anew")
                return
            self._apply_registries(_own(configuration.registries, self._settings.artifact_registries))
            self._apply_storages(_own(configuration.artifact_storages, self._settings.artifact_storages))
            self._digest = row["digest"]

    def _apply_registries(self, told: dict[str, RegistryConfiguration]) -> None:
        known, self._told_registries = self._told_registries, told
        for name in known:
            if known[name] != told.get(name) and name in self._registries:
                self._registries.pop(name).close()
        for name, registry in told.items():
            if name not in self._registries:
                with _named("registry", name):
                    self._registries[name] = open_registry(self._settings, registry)

    def _apply_storages(self, told: dict[str, ArtifactStorageConfiguration]) -> None:
        known, self._told_storages = self._told_storages, told
        made: dict[str, AbstractStorage] = {}
        for name, storage in told.items():
            if known.get(name) == storage and name in self._storage_pool:
                made[name] = self._storage_pool.get_storage(name)
                continue
            with _named("artifact storage", name):
                made[name] = open_storage(self._settings, storage)
        self._storage_pool.enter(made)

    def _seal(self) -> Seal:
        return Seal(self._settings.secrets, "storage proxy")

    def _opened(self, sealed: str) -> ProxyConfiguration | None:
        try:
            return ProxyConfiguration.model_validate_json(self._seal().open(sealed, _ABOUT))
        except (Unavailable, ValidationError):
            return None


def _own(told: Iterable[T], declared: Mapping[str, object]) -> dict[str, T]:
    return {one.name: one for one in told if one.name not in declared}


@contextmanager
def _named(kind: str, name: str) -> Iterator[None]:
    """One that cannot be used keeps no other from being used."""
    try:
        yield
    except StowageError as exc:
        log.warning("what was entered cannot be used", kind=kind, name=name, reason=exc.message)


def open_registry(settings: Settings, told: RegistryConfiguration) -> HuggingFaceRegistry:
    """Make a registry of what was entered; asks it nothing. Raises `BadRequest` for what is no address."""
    try:
        return HuggingFaceRegistry(
            told.name,
            ArtifactRegistrySection(url=told.url),
            settings.transfer,
            told.token,
            security=settings.verification.asks_registries,
        )
    except (ValueError, httpx.InvalidURL) as exc:
        raise BadRequest("this is no address of a registry; write http(s)://HOST") from exc


def open_storage(settings: Settings, told: ArtifactStorageConfiguration) -> AbstractStorage:
    """Make a storage of what was entered; touches no file system and no network.

    Raises `BadRequest` or `PathRefused` for a directory that the configuration does not allow.
    """
    if isinstance(told, VFSStorageConfiguration):
        root, below = allowed_directory(settings, told.base_path)
        return VFSStorage(told.name, root, below)
    return ObjectStorage(told.name, s3_section(told), lambda: keys_of(told))


def allowed_directory(settings: Settings, path: str) -> tuple[Path, str]:
    """Return the storage root that a directory lies in, and what stands below it.

    Raises `BadRequest` for a directory in none of them, `PathRefused` for a name that is never written, and `Conflict`
    for one that a volume or a storage of the configuration has a part in.
    """
    wanted = Path(path)
    root = next((root for root in settings.proxy.storage_roots if wanted.is_relative_to(root)), None)
    if root is None:
        raise BadRequest(
            "this directory lies in none of the proxy's storage-roots; choose one that does, or ask its operator"
        )
    below = wanted.relative_to(root).as_posix()
    if below == ".":
        below = ""
    else:
        check_path(below)
    places = [
        *(volume.path for volume in settings.volume.values()),
        *(storage.path for storage in settings.artifact_storages.values() if storage.type == "vfs"),
    ]
    if any(wanted.is_relative_to(place) or place.is_relative_to(wanted) for place in places):
        raise Conflict(
            "a volume or a storage of the proxy's configuration lies there; choose another directory"
        )
    return root, below


def s3_section(told: ObjectStorageConfiguration, **more: object) -> S3StorageSection:
    """Return what was entered of an object storage in the form of the configuration. Raises `BadRequest`."""
    values = {
        "type": "s3",
        "endpoint": told.endpoint,
        "region": told.region,
        "bucket": told.bucket or "no-bucket",
    }
    try:
        if (httpx.URL(told.endpoint).port or 0) > _LAST_PORT:
            raise httpx.InvalidURL("port")  # noqa: TRY301 -- beside the others that this is
        return S3StorageSection.model_validate(values | more)
    except (ValueError, httpx.InvalidURL) as exc:
        raise BadRequest(
            "this is no address of an S3 API; write http(s)://HOST, with a port where it is needed"
        ) from exc


def keys_of(told: ObjectStorageConfiguration) -> Credentials:
    """Return the keys that were entered."""
    return Credentials(told.access_key, told.secret_key)
