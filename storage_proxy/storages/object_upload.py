"""One file of unknown size on its way into a bucket; it appears whole or not at all."""

from proxy_client.errors import StorageFailure
from storage_proxy.storages.base import Digests
from storage_proxy.storages.object_area import Hashes
from storage_proxy.storages.s3 import S3Client

_GROWS_EVERY = 1000
"""Parts after which the next ones are twice as long: 10,000 of them then hold what any server takes."""


class Uploading:
    """Gathers parts of `least` bytes and more; every method blocks, and one caller at a time."""

    def __init__(self, client: S3Client, key: str, least: int) -> None:
        self._client = client
        self._key = key
        self._least = least
        self._hashes = Hashes(0, blob_id=False)
        self._buffer = bytearray()
        self._upload_id: str | None = None
        self._parts: list[tuple[int, str]] = []

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self._hashes.update(chunk)
        self._buffer += chunk
        while len(self._buffer) >= (size := self._least << (len(self._parts) // _GROWS_EVERY)):
            self._send(bytes(memoryview(self._buffer)[:size]))
            del self._buffer[:size]

    def _send(self, part: bytes) -> None:
        if self._upload_id is None:
            self._upload_id = self._client.create_upload(self._key, {})
        number = len(self._parts) + 1
        self._parts.append((number, self._client.upload_part(self._key, self._upload_id, number, part)))

    def finish(self) -> Digests:
        """Let the file appear, in place of one that is there."""
        found = self._hashes.digests()
        if self._upload_id is None:
            self._client.put(self._key, self._buffer, {"stowage-sha256": found.sha256}, sha256=found.sha256)
            return found
        if self._buffer:
            self._send(bytes(self._buffer))
        self._client.complete(self._key, self._upload_id, self._parts)
        self._upload_id = None
        head = self._client.head(self._key)
        if head is None or head.size != found.size:
            raise StorageFailure("the object that was written is not the one that is there")
        return found

    def close(self) -> None:
        """Drop what did not come to its end."""
        if self._upload_id is not None:
            self._client.abort(self._key, self._upload_id)
            self._upload_id = None
