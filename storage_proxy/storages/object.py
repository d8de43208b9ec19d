"""An S3 bucket, or a folder in one, as an artifact storage."""

import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from proxy_client.errors import DestinationConflict, NotFound, QuotaExceeded
from proxy_client.wire import OnConflict
from storage_proxy.settings import S3StorageSection
from storage_proxy.storages.base import (
    AbstractStorage,
    Digests,
    FileInfo,
    ImportPlan,
    Manifest,
    ManifestFile,
    StagingArea,
)
from storage_proxy.storages.object_area import RECORD, Keys, ObjectArea, check_keys
from storage_proxy.storages.object_publish import Publication, published
from storage_proxy.storages.object_staging import ObjectStaging, stream
from storage_proxy.storages.object_survey import Destination, Hashed, Surveyor, insist_on_a_folder
from storage_proxy.storages.object_unpublish import unpublish
from storage_proxy.storages.object_upload import Uploading
from storage_proxy.storages.s3 import Head, S3Client
from storage_proxy.storages.s3_signing import Credentials
from storage_proxy.volumes.directory import check_plan, check_staged
from storage_proxy.volumes.paths import check_destination, check_path, check_readable, join, parents, shown
from storage_proxy.volumes.quota import Usage
from storage_proxy.volumes.threads import in_thread


class ObjectStorage(AbstractStorage):
    """An artifact storage in a bucket, which must exist and list what was written as soon as it was written.

    `credentials` stand in place of those that the section names.
    """

    kind = "s3"
    local = False

    def __init__(
        self,
        name: str,
        section: S3StorageSection,
        credentials: Callable[[], Credentials] | None = None,
    ) -> None:
        self.name = name
        self._section = section
        self._what = f"artifact storage {name}"
        self._keys = Keys(section.prefix)
        self._hashed = Hashed()
        self._room = threading.BoundedSemaphore(section.parallel_parts)
        self._kept: dict[UUID, int] = {}  # bytes that imports of this process need in all, by task
        self.client = S3Client(section, self._what, credentials)

    async def aclose(self) -> None:
        await in_thread(self.client.close)

    async def check(self) -> None:
        await in_thread(lambda: list(self.client.objects(self._keys.staging, first=1)))

    # The visible side.

    async def stream_upload(self, path: str, stream: AsyncIterator[bytes]) -> Digests:
        key = self._keys.of(check_path(path))
        await in_thread(self._insist_on_a_place, path)
        uploading = Uploading(self.client, key, self._section.part_size)
        try:
            async for chunk in stream:
                await in_thread(uploading.write, chunk)
            return await in_thread(uploading.finish)
        finally:
            await in_thread(uploading.close)

    def _insist_on_a_place(self, path: str) -> None:
        if any(True for _ in self.client.objects(self._keys.below(path), first=1)):
            raise DestinationConflict(f"a folder lies at {shown(path)}")
        above = parents(path)
        if above:
            insist_on_a_folder(self.client, self._keys, above[-1])

    def stream_download(self, path: str) -> AsyncIterator[bytes]:
        key = self._keys.of(check_readable(path))

        def read() -> Iterator[bytes]:
            try:
                yield from self.client.stream(key)
            except NotFound as exc:
                raise _no_file(path) from exc

        return stream(read)

    async def delete_file(self, path: str) -> None:
        key = self._keys.of(check_readable(path))
        await in_thread(self._head, path)
        await in_thread(self.client.delete, key)

    async def get_file_info(self, path: str) -> FileInfo:
        head = await in_thread(self._head, path)
        return FileInfo(path, head.size, head.modified_at)

    def _head(self, path: str) -> Head:
        head = self.client.head(self._keys.of(check_readable(path)))
        if head is None:
            raise _no_file(path)
        return head

    def open_local(self, path: str) -> int | None:
        check_readable(path)
        return None

    async def usage(self) -> Usage:
        """Count bytes and objects below the prefix, those of staging too."""

        def work() -> Usage:
            size = count = 0
            for found in self.client.objects(self._keys.root):
                size, count = size + found.size, count + 1
            return Usage(size, count)

        return await in_thread(work)

    async def presign(self, method: str, path: str, key: str, expires: int) -> str:
        check_path(key)
        signed = self._keys.of(check_path(join(check_destination(path), key)))
        return await in_thread(self.client.presign, method, signed, expires)

    async def unpublish(self, path: str, artifact: str, version: str) -> Manifest | None:
        check_destination(path)
        return await in_thread(unpublish, self.client, self._keys, self._hashed, path, artifact, version)

    # The hidden side.

    async def open_staging(self, task_id: UUID, *, destination: str | None = None) -> StagingArea:
        """As `AbstractStorage.open_staging`: with a destination, a large file goes there as the parts of an upload that
        `publish` completes.
        """

        def work() -> ObjectStaging:
            self._kept.pop(task_id, None)
            area = self._area(task_id)
            area.claim()
            return self._staging(area, destination)

        return await in_thread(work)

    def _area(self, task_id: UUID) -> ObjectArea:
        return ObjectArea(self.client, self._keys, task_id)

    def _staging(self, area: ObjectArea, destination: str | None = None) -> ObjectStaging:
        return ObjectStaging(
            area,
            Publication(area, self._hashed).give_back,
            destination=destination,
            least_part=self._section.part_size,
            room=self._room,
        )

    async def reserve(self, needed: int, *, task_id: UUID | None = None, limit: int | None = None) -> None:
        limits = self._limits(limit)
        if not limits:
            return
        others, own = await self._used(task_id)
        if needed and others + own + needed > min(limits):
            raise QuotaExceeded(
                f"{needed} bytes are needed, and {others + own} of the {min(limits)} bytes that {self._what} may hold are "
                "in use; make room or raise its limit"
            )
        if task_id is not None:
            self._kept[task_id] = own + needed

    async def insist_on_limit(self, task_id: UUID, *, limit: int | None = None) -> None:
        if not (limits := self._limits(limit)):
            return
        others, own = await self._used(task_id)
        # The parts of an upload are no object before it is completed: what was needed tells of them.
        used = others + max(own, self._kept.get(task_id, 0))
        if used > min(limits):
            raise QuotaExceeded(
                f"{used} bytes are in use or kept for this import, and {self._what} may hold {min(limits)} by now; make "
                "room or raise its limit"
            )

    async def _used(self, task_id: UUID | None) -> tuple[int, int]:
        """Sum up what lies here beside an import's staging area, and its files in it, without Stowage's notes."""
        area = None if task_id is None else self._keys.area(task_id)

        def work() -> tuple[int, int]:
            others = own = 0
            for found in self.client.objects(self._keys.root):
                if area is not None and found.key.startswith(area):
                    own += found.size if "/" in found.key.removeprefix(area) else 0
                else:
                    others += found.size
            return others, own

        return await in_thread(work)

    def _limits(self, limit: int | None) -> list[int]:
        return [each for each in (self._section.limit_bytes, limit) if each is not None]

    async def present_files(self, plan: ImportPlan) -> Sequence[ManifestFile]:
        self._check(plan)

        def work() -> list[ManifestFile]:
            there = Destination(self.client, self._keys, plan.path)
            return list(Surveyor(there, plan, OnConflict.FAIL, self._hashed).present())

        return await in_thread(work)

    async def check_conflicts(self, plan: ImportPlan, on_conflict: OnConflict) -> None:
        self._check(plan)

        def work() -> None:
            insist_on_a_folder(self.client, self._keys, plan.path)
            there = Destination(self.client, self._keys, plan.path)
            survey = Surveyor(there, plan, on_conflict, self._hashed).survey(None)
            survey.obstacles.insist_on_no_conflict(plan.path)

        await in_thread(work)

    async def publish(
        self, plan: ImportPlan, staged: Sequence[ManifestFile], on_conflict: OnConflict
    ) -> Manifest:
        self._check(plan)
        check_staged(plan, staged)

        def work() -> Manifest:
            area = self._area(plan.task_id)
            if not area.exists() and (manifest := published(self.client, self._keys, plan)) is not None:
                return manifest
            area.claim()
            return Publication(area, self._hashed).run(plan, staged, on_conflict)

        return await in_thread(work)

    async def publishing(self, task_id: UUID) -> bool:
        return await in_thread(self._area(task_id).has, RECORD)

    def _check(self, plan: ImportPlan) -> None:
        check_plan(plan)
        check_keys(self._keys, plan)

    # What nobody waits for any more.

    async def remove_abandoned(self, live: Collection[UUID]) -> int:
        """As `AbstractStorage.remove_abandoned`, for what is older than `abandoned-after`.

        Staging areas of imports that are not open are discarded, and uploads that no area knows of aborted: a worker
        that died between two requests leaves them.
        """

        def work() -> int:
            before = datetime.now(UTC) - timedelta(seconds=self._section.abandoned_after)
            count, known = 0, set[str]()
            for folder in list(self.client.folders(self._keys.staging)):
                try:
                    area = self._area(UUID(folder))
                except ValueError:
                    continue
                if area.task_id not in live and self._newest(area) < before:
                    area.claim()
                    Publication(area, self._hashed).give_back()
                    area.remove()
                    count += 1
                else:
                    area.look()
                    known.update(area.uploads())
            for upload in list(self.client.list_uploads(self._keys.root)):
                if upload.upload_id not in known and upload.initiated_at < before:
                    self.client.abort(upload.key, upload.upload_id)
                    count += 1
            return count

        return await in_thread(work)

    def _newest(self, area: ObjectArea) -> datetime:
        moments = (found.modified_at for found in self.client.objects(area.root))
        return max(moments, default=datetime.min.replace(tzinfo=UTC))


def _no_file(path: str) -> NotFound:
    return NotFound(f"there is no file {shown(path)}", field="path")
