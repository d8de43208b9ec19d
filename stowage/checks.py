"""What is done with a service's file without the service: `--check-config`, which changes nothing, and the migrations."""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import migrations
from manager.settings import Settings as ManagerSettings
from manager.settings import read_settings as read_manager
from proxy_client.client import StorageProxyClient
from proxy_client.configuration import Fault, read_value
from proxy_client.errors import BadRequest, StowageError
from storage_proxy.settings import Settings as ProxySettings
from storage_proxy.settings import VFSStorageSection
from storage_proxy.settings import read_settings as read_proxy

_ANSWERS_WITHIN = 3.0  # seconds
_TOKEN = ("STOWAGE_ADMIN_TOKEN_FILE",)
Paths = Iterable[tuple[tuple[str, ...], Path]]


@dataclass(frozen=True)
class Outcome:
    """`faults` are lines for people: place, setting, remedy. `facts` sum up what a file without faults sets."""

    faults: Sequence[str]
    facts: Sequence[tuple[str, object]] = ()


def check_manager(path: Path, *, migrated: bool = True, admin_token_file: str | None = None) -> Outcome:
    """Check `manager.toml`, its files and its database.

    migrated: whether tables that are not of this version are a fault. admin_token_file: what the environment names.
    """
    try:
        configuration = read_manager(path)
    except BadRequest as exc:
        return Outcome(exc.message.splitlines())
    settings = configuration.settings
    secrets: list[tuple[tuple[str, ...], Path]] = [
        (("storage-proxies", name, "secret-file"), section.secret_file)
        for name, section in settings.storage_proxies.items()
    ]
    faults, database = _database(_manager_database(settings, migrated=migrated), "manager")
    faults += _unreadable(secrets)
    told = [configuration.describe(fault) for fault in faults]
    if admin_token_file:
        told += [
            f"environment: {where[0]}: {text}"
            for where, text in _unreadable([(_TOKEN, Path(admin_token_file))])
        ]
    reservoir = settings.reservoir
    if not told and reservoir and (fault := reservoir.fault(_asked(settings, reservoir.proxy))):
        told.append(configuration.describe(fault))
    return Outcome(
        told,
        [
            ("file", path),
            ("listens on", settings.manager.listen),
            ("database", database),
            ("storage proxies", _listed(settings.storage_proxies)),
            ("registries", _listed(settings.artifact_registries)),
            ("artifact storage", f"{reservoir.archive} of {reservoir.proxy}" if reservoir else "none"),
            ("default host", settings.vfolder.default_host if settings.vfolder else "none"),
        ],
    )


def check_proxy(path: Path, *, migrated: bool = True) -> Outcome:
    """Check `storage-proxy.toml`, its files, directories and database; as `check_manager`."""
    try:
        configuration = read_proxy(path)
    except BadRequest as exc:
        return Outcome(exc.message.splitlines())
    settings = configuration.settings
    secrets: list[tuple[tuple[str, ...], Path]] = [(("proxy", "secret-file"), settings.proxy.secret_file)]
    for name, registry in settings.artifact_registries.items():
        if registry.token_file is not None:
            secrets.append((("artifact-registries", name, "token-file"), registry.token_file))
    secrets += settings.storage_secrets()
    directories: list[tuple[tuple[str, ...], Path]] = [
        *((("volume", name, "path"), volume.path) for name, volume in settings.volume.items()),
        *(
            (("artifact-storages", name, "path"), storage.path)
            for name, storage in settings.artifact_storages.items()
            if isinstance(storage, VFSStorageSection)
        ),
        *((("proxy", "storage-roots"), root) for root in settings.proxy.storage_roots),
    ]
    faults, database = _database(_proxy_database(settings, migrated=migrated), "proxy")
    faults += _unreadable(secrets) + _unusable(directories)
    try:
        settings.verification.load_suite()
    except BadRequest as exc:
        faults.append(Fault(("verification",), exc.message))
    return Outcome(
        [configuration.describe(fault) for fault in faults],
        [
            ("file", path),
            ("name", settings.proxy.name),
            ("listens on", settings.proxy.listen),
            ("database", database),
            ("manager", settings.proxy.manager_url),
            ("volumes", _listed(settings.volume)),
            ("artifact storages", _listed(settings.artifact_storages)),
            ("registries", _listed(settings.artifact_registries)),
        ],
    )


def disagreements(managers: Iterable[Path], proxies: Iterable[Path]) -> list[str]:
    """Say what the files of managers want that the files of their storage proxies do not offer.

    A file with faults of its own is left out: they are said elsewhere.
    """
    kinds: dict[str, dict[str, str]] = {}
    for path in proxies:
        with suppress(BadRequest):
            proxy = read_proxy(path).settings
            kinds[proxy.proxy.name] = {
                name: section.type for name, section in proxy.artifact_storages.items()
            }
    told = []
    for path in managers:
        with suppress(BadRequest):
            configuration = read_manager(path)
            reservoir = configuration.settings.reservoir
            if reservoir and (fault := reservoir.fault(kinds.get(reservoir.proxy, {}))):
                told.append(configuration.describe(fault))
    return told


def _asked(settings: ManagerSettings, name: str) -> dict[str, str]:
    """Ask a storage proxy which artifact storages it has; none if it does not run."""
    section = settings.storage_proxies[name]

    async def ask() -> dict[str, str]:
        client = StorageProxyClient(name, section.url, section.secrets[0])
        try:
            async with asyncio.timeout(_ANSWERS_WITHIN):
                return {storage.name: storage.type for storage in await client.artifact_storages()}
        except (TimeoutError, StowageError):
            return {}
        finally:
            await client.aclose()

    return asyncio.run(ask())


def migrate_manager(path: Path) -> str:
    """Bring the tables of a `manager.toml` to this version; returns what was done, for people.

    Raises `StowageError` with the place of the setting that does not lead to a usable database.
    """
    configuration = read_manager(path)

    async def migrate() -> str:
        url = configuration.settings.database_url
        lacking = await migrations.pending_manager(url)
        await migrations.migrate_manager(url)
        return _applied(url, lacking)

    return _migrate(migrate(), configuration.describe, "manager")


def migrate_proxy(path: Path) -> str:
    """Bring the tables of a `storage-proxy.toml` to this version; as `migrate_manager`."""
    configuration = read_proxy(path)

    async def migrate() -> str:
        url, schema = configuration.settings.database_url, configuration.settings.proxy.database_schema
        lacking = await migrations.pending_proxy(url, schema)
        await migrations.migrate_proxy(url, schema)
        return f"{_applied(url, lacking)}, schema {schema}"

    return _migrate(migrate(), configuration.describe, "proxy")


def _migrate(work: Coroutine[Any, Any, str], describe: Callable[[Fault], str], table: str) -> str:
    try:
        return asyncio.run(work)
    except StowageError as exc:
        path = (table, "database-file")
        raise type(exc)(describe(_fault(path, exc))) from exc


def _applied(url: str, lacking: list[str]) -> str:
    done = f"migrated by {', '.join(lacking)}" if lacking else "nothing to do"
    return f"{migrations.database_name(url)}: {done}"


async def _manager_database(settings: ManagerSettings, *, migrated: bool) -> str:
    url = settings.database_url
    lacking = await migrations.pending_manager(url)
    return _migrated(url, lacking, "--manager", required=migrated)


async def _proxy_database(settings: ProxySettings, *, migrated: bool) -> str:
    url, schema = settings.database_url, settings.proxy.database_schema
    lacking = await migrations.pending_proxy(url, schema)
    return f"{_migrated(url, lacking, '--proxy', required=migrated)}, schema {schema}"


def _migrated(url: str, lacking: list[str], option: str, *, required: bool) -> str:
    if lacking and required:
        raise BadRequest(
            f"the database {migrations.database_name(url)} lacks the migrations {', '.join(lacking)}; run `stowage migrate {option} FILE`"
        )
    return f"{migrations.database_name(url)}, {f'lacks {_listed(lacking)}' if lacking else 'migrated'}"


def _database(check: Coroutine[Any, Any, str], table: str) -> tuple[list[Fault], str]:
    try:
        return [], asyncio.run(check)
    except StowageError as exc:
        return [_fault((table, "database-file"), exc)], ""


def _unreadable(files: Paths) -> list[Fault]:
    faults = []
    for path, file in files:
        try:
            read_value(file, ".".join(path))
        except StowageError as exc:
            faults.append(_fault(path, exc))
    return faults


def _unusable(directories: Paths) -> list[Fault]:
    faults = []
    for path, directory in directories:
        if not directory.is_dir():
            text = f"{directory} is no directory; mount the file system, or make the directory"
            faults.append(Fault(path, text))
        elif not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            text = f"{directory} is not writable for user {os.geteuid()}; give it to that user, or correct its mode"
            faults.append(Fault(path, text))
    return faults


def _fault(path: tuple[str, ...], error: StowageError) -> Fault:
    return Fault(path, error.message.removeprefix(f"{'.'.join(path)}: "))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
