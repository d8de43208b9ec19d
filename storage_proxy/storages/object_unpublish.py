"""Taking an import out of a bucket again: its manifest's files that nobody changed, and then the manifest."""

from storage_proxy.storages.object_area import Keys
from storage_proxy.storages.object_survey import Destination, Hashed, ObjectFile, ObjectManifest
from storage_proxy.storages.s3 import S3Client
from storage_proxy.volumes.paths import manifest_path


def unpublish(
    client: S3Client, keys: Keys, hashed: Hashed, path: str, artifact: str, version: str
) -> ObjectManifest | None:
    """Remove what an import published at `path`; returns its manifest, None if there is none. May be repeated."""
    there = Destination(client, keys, path)
    ours = manifest_path(artifact, version)
    manifests = dict(there.manifests())
    manifest = manifests.pop(ours, None)
    if manifest is None:
        return None
    others = {(file.path, file.sha256) for other in manifests.values() for file in other.files}

    def goes(file: ObjectFile) -> bool:
        found = there.objects.get(file.path)
        if found is None or file.preexisting or (file.path, file.sha256) in others:
            return False
        if file.etag:
            return (found.etag, found.size) == (file.etag, file.size)
        digests = hashed.read(client, found, blob_id=False) if found.size == file.size else None
        return digests is not None and digests.sha256 == file.sha256

    def remove(file: ObjectFile) -> None:
        if goes(file):
            client.delete(f"{there.prefix}{file.path}")

    client.side_by_side(remove, manifest.files)
    client.delete(f"{there.prefix}{ours}")
    return manifest
