"""A storage in a bucket under test, and a look at it past its own interface."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from storage_proxy.settings import S3StorageSection
from storage_proxy.storages.base import AbstractStorage
from storage_proxy.storages.object import ObjectStorage
from storage_proxy.storages.s3 import S3Client
from tests.s3.server import S3Server


@dataclass
class Bucket:
    """A storage that keeps to the folder `prefix` of a bucket; `client` sees all of it."""

    storage: AbstractStorage
    client: S3Client
    prefix: str
    section: S3StorageSection

    def look(self) -> dict[str, object]:
        """Return the bytes of every visible object; a manifest comes without its time."""
        root = f"{self.prefix}/" if self.prefix else ""
        found: dict[str, object] = {}
        for listed in list(self.client.objects(root)):
            path = listed.key.removeprefix(root)
            if not path.startswith(".staging/"):
                content = b"".join(self.client.stream(listed.key))
                found[path] = _manifest(content) if "/.stowage/" in f"/{path}" else content
        return found

    async def visible(self) -> dict[str, object]:
        return await asyncio.to_thread(self.look)

    def staged(self) -> list[str]:
        root = f"{self.prefix}/" if self.prefix else ""
        staged = [found.key for found in self.client.objects(f"{root}.staging/")]
        return staged + [upload.key for upload in self.client.list_uploads(root)]

    async def hidden(self) -> list[str]:
        return await asyncio.to_thread(self.staged)

    async def put(self, files: Mapping[str, bytes]) -> None:
        def work() -> None:
            for path, content in files.items():
                self.client.put(f"{self.prefix}/{path}" if self.prefix else path, content)

        await asyncio.to_thread(work)


@contextmanager
def bucket_of(server: S3Server, prefix: str = "models/ü b", **settings: object) -> Iterator[Bucket]:
    """Make a bucket of its own with a storage in it."""
    with server.bucket() as name:
        section = server.section(name, prefix=prefix, **settings)
        client = S3Client(section, "the test's bucket", lambda: server.credentials)
        storage = ObjectStorage("bucket", section, lambda: server.credentials)
        try:
            yield Bucket(storage, client, prefix, section)
        finally:
            storage.client.close()
            client.close()


def _manifest(content: bytes) -> object:
    try:
        return {key: value for key, value in json.loads(content).items() if key != "imported_at"}
    except ValueError:
        return content
