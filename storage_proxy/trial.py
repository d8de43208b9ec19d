"""Trying what an administrator is about to enter, before anybody keeps it."""

import asyncio
import os
from functools import partial
from uuid import uuid4

from proxy_client.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    ReadOnlyStorage,
    SourceForbidden,
    StorageFailure,
)
from proxy_client.wire import (
    ConfigurationCheck,
    ObjectStorageConfiguration,
    RegistryConfiguration,
    VFSStorageConfiguration,
)
from storage_proxy.entered import allowed_directory, keys_of, open_registry, s3_section
from storage_proxy.settings import Settings
from storage_proxy.storages.base import STAGING_FOLDER
from storage_proxy.storages.object import ObjectStorage
from storage_proxy.storages.s3_answers import AccessDenied, parse
from storage_proxy.storages.s3_requests import S3Requests
from storage_proxy.volumes import fsio
from storage_proxy.volumes.paths import join
from storage_proxy.volumes.threads import in_thread

_TRIAL_SECONDS = 15.0
# Whoever enters a storage waits for the answer and can ask again.
_IMPATIENT = {"retries": 0, "connect_timeout": 5.0, "stall_timeout": 10.0}


async def check_configuration(settings: Settings, asked: ConfigurationCheck) -> None:
    """Use a registry or a storage once. Raises what stands in the way; `field` names the value that is wrong, if one is."""
    try:
        async with asyncio.timeout(_TRIAL_SECONDS):
            if asked.registry is not None:
                await _check_registry(settings, asked.registry)
            if asked.artifact_storage is not None:
                await _check_storage(settings, asked.artifact_storage)
    except TimeoutError as exc:
        raise StorageFailure(f"there was no answer within {_TRIAL_SECONDS:.0f} seconds") from exc


async def _check_registry(settings: Settings, told: RegistryConfiguration) -> None:
    if told.name in settings.artifact_registries:
        raise Conflict(
            "the storage proxy's configuration has a registry of this name; choose another one", field="name"
        )
    registry = open_registry(settings, told)
    try:
        await registry.search(None, limit=1, sort=None)
    except SourceForbidden as exc:
        raise SourceForbidden(exc.message, field="token") from exc
    finally:
        registry.close()


async def _check_storage(
    settings: Settings, told: VFSStorageConfiguration | ObjectStorageConfiguration
) -> None:
    if told.name in settings.artifact_storages:
        raise Conflict(
            "the storage proxy's configuration has a storage of this name; choose another one", field="name"
        )
    if isinstance(told, VFSStorageConfiguration):
        await in_thread(partial(_write_directory, settings, told))
        return
    try:
        await (_list_buckets(told) if told.bucket is None else _use_bucket(told))
    except ReadOnlyStorage as exc:
        raise Forbidden(exc.message, field=exc.field) from exc


def _write_directory(settings: Settings, told: VFSStorageConfiguration) -> None:
    """Make the directory, and a file in its staging area. No link is followed below the storage root."""
    root, below = allowed_directory(settings, told.base_path)
    staging = join(below, STAGING_FOLDER)
    probe = f"{staging}/{uuid4().hex}"
    try:
        with fsio.translated("trying the directory"), fsio.trusted(root) as mount:
            if below:
                fsio.make_folders(mount, below, fsio.PUBLIC)
            fsio.make_folders(mount, staging, fsio.PRIVATE)
            os.close(fsio.create(mount, probe, fsio.PRIVATE))
            fsio.unlink(mount, probe)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise BadRequest(
            "there is no such directory, and it cannot be made: a part of the path is a file or a link, or the "
            "storage root is missing"
        ) from exc


async def _list_buckets(told: ObjectStorageConfiguration) -> None:
    """Ask the service itself. Keys that may not list buckets are good keys."""
    doing = "listing buckets"
    requests = S3Requests(
        s3_section(told, **_IMPATIENT), "object storage", lambda: keys_of(told), of_bucket=False
    )
    try:
        answer = await in_thread(partial(requests.ask, "GET", "", doing))
        there = parse(answer.body, doing).tag.endswith("ListAllMyBucketsResult")
    except AccessDenied:
        return
    except NotFound:
        there = False
    finally:
        requests.close()
    if not there:
        raise StorageFailure("what answers there is no S3 API; correct the endpoint")


async def _use_bucket(told: ObjectStorageConfiguration) -> None:
    """List the bucket, write an object to its staging area, and remove that."""
    storage = ObjectStorage(told.name, s3_section(told, **_IMPATIENT), lambda: keys_of(told))
    probe = f"{STAGING_FOLDER}/{uuid4().hex}"
    try:
        await storage.check()
        await in_thread(partial(storage.client.put, probe, b""))
        await in_thread(partial(storage.client.delete, probe))
    finally:
        await storage.aclose()
