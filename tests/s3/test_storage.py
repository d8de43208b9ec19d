"""What a storage in a bucket promises beyond what every storage does."""

import asyncio
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from proxy_client.errors import (
    BadRequest,
    DestinationConflict,
    PathRefused,
    QuotaExceeded,
    ReadOnlyStorage,
    StorageFailure,
)
from storage_proxy.storages.base import PIECE, StagingArea
from storage_proxy.storages.object import ObjectStorage
from storage_proxy.storages.object_area import part_size
from storage_proxy.storages.s3_signing import Credentials
from tests.s3.place import Bucket, bucket_of
from tests.s3.requests import Watch, lose
from tests.s3.server import S3Server
from tests.storages.models import FAIL, OVERWRITE, Model, chunks, digests_of, fill, planned, write

pytestmark = pytest.mark.anyio

TASK = UUID(int=7)
BIG = os.urandom(1 << 20) * 20 + b"end"  # two parts of 8 MiB and a bit
LARGE = Model({"big": BIG, "small": b"s", "empty": b""}, task_id=TASK)
DESTINATION = "org/model/main"


@pytest.fixture
def storage(bucket: Bucket) -> ObjectStorage:
    assert isinstance(bucket.storage, ObjectStorage)
    return bucket.storage


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch().install(monkeypatch)


async def relay(storage: ObjectStorage, model: Model, *names: str) -> StagingArea:
    """Do what ARCHIVE does with the files of a model that are verified somewhere else."""
    plan = model.plan(DESTINATION)
    staging = await storage.open_staging(model.task_id, destination=DESTINATION)
    await staging.save_plan(plan)
    for file in plan.files:
        if not names or file.path in names:
            found = await asyncio.to_thread(write, staging, file, model.files[file.path])
            assert file.matches(found)
    return staging


# Large files.


@pytest.mark.parametrize(
    ("size", "size_of_parts"),
    [
        (0, 16 << 20),
        (1 << 30, 16 << 20),
        (48 << 30, 16 << 20),
        (140 << 30, 16 << 20),
        (141 << 30, 24 << 20),
        (5 << 40, 584 << 20),
    ],
)
def test_parts_grow_with_the_file(size: int, size_of_parts: int) -> None:
    assert part_size(size, 16 << 20) == size_of_parts
    assert size_of_parts % PIECE == 0
    assert -(-size // size_of_parts) <= 9000


async def test_a_file_of_more_parts_than_are_allowed_gets_longer_ones(
    bucket: Bucket, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if the protocol allowed two parts: what is 48 GiB and more in life.
    monkeypatch.setattr("storage_proxy.storages.object_area.MOST_PARTS", 2)
    for task, destination in ((TASK, DESTINATION), (UUID(int=8), None)):
        model = replace(LARGE, task_id=task)
        staging = await storage.open_staging(task, destination=destination)
        plan = model.plan(DESTINATION)
        await staging.save_plan(plan)
        for file in plan.files:
            await asyncio.to_thread(write, staging, file, model.files[file.path])
        await storage.publish(plan, model.staged(), OVERWRITE)
        await staging.discard()
        head = bucket.client.head(f"{bucket.prefix}/{DESTINATION}/big")
        assert head is not None
        assert head.etag.endswith("-2")
        found = await bucket.visible()
        assert {path: found[f"{DESTINATION}/{path}"] for path in model.files} == dict(model.files)


async def test_parts_are_sent_early_and_seen_by_nobody(
    bucket: Bucket, storage: ObjectStorage, watch: Watch
) -> None:
    staging = await relay(storage, LARGE)
    sent = [request for request in watch.made if "partNumber" in request[1]]
    assert len(sent) == 3
    assert await bucket.visible() == {}
    await storage.publish(LARGE.plan(DESTINATION), LARGE.staged(), FAIL)
    assert [request for request in watch.made if "partNumber" in request[1]] == sent
    await staging.discard()
    found = await bucket.visible()
    assert {path: found[f"{DESTINATION}/{path}"] for path in LARGE.files} == dict(LARGE.files)
    assert await bucket.hidden() == []


async def test_a_part_that_was_sent_is_not_sent_again(storage: ObjectStorage, watch: Watch) -> None:
    file = LARGE.plan(DESTINATION).files[0]
    staging = await storage.open_staging(TASK, destination=DESTINATION)

    def begin() -> None:
        with staging.open_writer(file) as writer:
            writer.write(0, memoryview(BIG)[: 2 * PIECE + 5])

    await asyncio.to_thread(begin)
    sent = [query for _, query in watch.made if "partNumber" in query]
    assert len(sent) == 2
    again = await storage.open_staging(TASK, destination=DESTINATION)
    assert file.matches(await asyncio.to_thread(write, again, file, BIG))
    assert len([query for _, query in watch.made if "partNumber" in query]) == 3


async def test_a_part_of_other_bytes_is_sent_again(bucket: Bucket, storage: ObjectStorage) -> None:
    staging = await storage.open_staging(TASK, destination=DESTINATION)
    file = LARGE.plan(DESTINATION).files[0]

    def begin() -> None:
        with staging.open_writer(file) as writer:
            writer.write(0, memoryview(b"x" * (2 * PIECE)))

    await asyncio.to_thread(begin)
    await relay(storage, LARGE)
    await storage.publish(LARGE.plan(DESTINATION), LARGE.staged(), FAIL)
    assert (await bucket.visible())[f"{DESTINATION}/big"] == BIG


async def test_an_upload_that_somebody_aborted_begins_again(bucket: Bucket, storage: ObjectStorage) -> None:
    await relay(storage, LARGE, "small")
    file = LARGE.plan(DESTINATION).files[0]

    async def begin() -> None:
        staging = await storage.open_staging(TASK, destination=DESTINATION)
        with await asyncio.to_thread(staging.open_writer, file) as writer:
            await asyncio.to_thread(writer.write, 0, memoryview(BIG)[:PIECE])

    await begin()
    for upload in list(bucket.client.list_uploads("")):
        bucket.client.abort(upload.key, upload.upload_id)
    await relay(storage, LARGE)
    await storage.publish(LARGE.plan(DESTINATION), LARGE.staged(), FAIL)
    assert (await bucket.visible())[f"{DESTINATION}/big"] == BIG


async def test_a_lost_part_fails_the_file_and_holds_no_memory(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = await storage.open_staging(TASK, destination=DESTINATION)
    file = LARGE.plan(DESTINATION).files[0]

    def attempt() -> None:
        with staging.open_writer(file) as writer, pytest.MonkeyPatch.context() as patch:
            Watch(1, lose, for_good=True).install(patch)
            with suppress(StorageFailure):
                fill(writer, BIG)
            with pytest.raises(StorageFailure):
                writer.finish()

    for _ in range(3):  # each would keep its share of the room that all uploads have
        await asyncio.to_thread(attempt)
    assert file.matches(await asyncio.to_thread(write, staging, file, BIG))


async def test_an_upload_is_written_from_front_to_back(storage: ObjectStorage) -> None:
    staging = await storage.open_staging(TASK, destination=DESTINATION)

    def work() -> None:
        with staging.open_writer(LARGE.plan(DESTINATION).files[0]) as writer:
            assert writer.missing() == [(0, len(BIG))]
            writer.write(0, memoryview(BIG)[:5])
            assert writer.missing() == [(5, len(BIG))]
            with pytest.raises(StorageFailure, match="front to back"):
                writer.write(6, memoryview(b"x"))

    await asyncio.to_thread(work)


async def test_many_uploads_share_the_room_for_parts(bucket: Bucket, storage: ObjectStorage) -> None:
    model = Model({f"big-{number}": bytes([number]) * (PIECE + 1) for number in range(6)}, task_id=TASK)
    plan = model.plan(DESTINATION)
    staging = await storage.open_staging(TASK, destination=DESTINATION)
    await staging.save_plan(plan)

    def work() -> None:
        with ThreadPoolExecutor(6) as threads:
            for file, found in zip(
                plan.files,
                threads.map(lambda file: write(staging, file, model.files[file.path]), plan.files),
                strict=True,
            ):
                assert file.matches(found)

    await asyncio.to_thread(work)
    await storage.publish(plan, model.staged(), FAIL)
    found = await bucket.visible()
    assert {path: found[f"{DESTINATION}/{path}"] for path in model.files} == dict(model.files)


async def test_a_stream_of_unknown_length_goes_in_parts(bucket: Bucket, storage: ObjectStorage) -> None:
    found = await storage.stream_upload(
        "a/b", chunks(*[BIG[start : start + (3 << 20)] for start in range(0, len(BIG), 3 << 20)])
    )
    assert (found.size, found.sha256) == (len(BIG), digests_of(BIG).sha256)
    assert await bucket.visible() == {"a/b": BIG}

    async def broken() -> AsyncIterator[bytes]:
        yield BIG
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await storage.stream_upload("a/b", broken())
    assert await bucket.visible() == {"a/b": BIG}
    assert await bucket.hidden() == []


# Cancelling and cleaning up.


async def test_a_cancel_aborts_every_upload(bucket: Bucket, storage: ObjectStorage) -> None:
    staging = await relay(storage, LARGE, "small")

    def begin() -> None:
        with staging.open_writer(LARGE.plan(DESTINATION).files[0]) as writer:
            writer.write(0, memoryview(BIG)[:PIECE])

    await asyncio.to_thread(begin)
    assert len(list(bucket.client.list_uploads(""))) == 1
    await staging.discard()
    assert await bucket.hidden() == []
    assert await bucket.visible() == {}


async def test_who_lost_the_import_changes_nothing_more(bucket: Bucket, storage: ObjectStorage) -> None:
    stale = await relay(storage, LARGE)
    await storage.open_staging(TASK)
    for attempt in (
        lambda: stale.open_writer(planned("other", BIG)),
        lambda: asyncio.run(stale.drop("small")),
        lambda: asyncio.run(stale.save_plan(LARGE.plan(DESTINATION))),
    ):
        with pytest.raises(StorageFailure, match="taken over"):
            await asyncio.to_thread(attempt)


async def test_orphans_go_and_what_is_open_stays(s3_server: S3Server) -> None:
    with bucket_of(s3_server, part_size=8 << 20) as bucket:
        old = bucket.section.model_copy(update={"abandoned_after": -2.0})  # whatever was made until now
        cleaner = ObjectStorage("bucket", old, lambda: s3_server.credentials)
        storage = bucket.storage
        assert isinstance(storage, ObjectStorage)
        live, dead = LARGE, replace(LARGE, task_id=UUID(int=8))
        await relay(storage, live)
        await relay(storage, dead)
        bucket.client.create_upload(f"{bucket.prefix}/{DESTINATION}/nobody's", {})
        elsewhere = bucket.client.create_upload("elsewhere", {})
        assert await storage.remove_abandoned([live.task_id]) == 0
        assert await cleaner.remove_abandoned([live.task_id]) == 2
        assert not [key for key in await bucket.hidden() if str(dead.task_id) in key]
        assert elsewhere in [upload.upload_id for upload in bucket.client.list_uploads("")]
        await storage.publish(live.plan(DESTINATION), live.staged(), FAIL)
        cleaner.client.close()


# What lies where.


async def test_a_folder_is_never_taken_for_one_beside_it(bucket: Bucket, storage: ObjectStorage) -> None:
    await bucket.put({"org/model/main-fp16/a": b"f", "org/model/main.txt": b"t"})
    model = Model({"a": b"1"})
    assert await storage.present_files(model.plan(DESTINATION)) == []
    await model.bring(storage, DESTINATION)
    newer = Model({"b": b"2"})
    await newer.bring(storage, DESTINATION)
    found = {path: data for path, data in (await bucket.visible()).items() if ".stowage" not in path}
    assert found == {
        "org/model/main-fp16/a": b"f",
        "org/model/main.txt": b"t",
        "org/model/main/b": b"2",
    }


async def test_two_storages_of_one_bucket_keep_to_their_folders(
    s3_server: S3Server, bucket: Bucket, storage: ObjectStorage
) -> None:
    for prefix in ("", f"{bucket.prefix}x"):
        section = bucket.section.model_copy(update={"prefix": prefix})
        other = ObjectStorage("other", section, lambda: s3_server.credentials)
        await LARGE.bring(other, DESTINATION)
        await other.remove_abandoned([])
        other.client.close()
    assert await bucket.visible() == {}
    assert (await storage.usage()) == (0, 0)


async def test_a_file_and_a_folder_of_one_name_are_a_conflict(bucket: Bucket, storage: ObjectStorage) -> None:
    for files, path in (
        ({"org": b""}, DESTINATION),
        ({"a/b": b""}, "a/b/c"),
        ({"x/big/inside": b""}, "x"),
    ):
        await bucket.put(files)
        with pytest.raises(DestinationConflict):
            await LARGE.bring(storage, path, OVERWRITE)
    with pytest.raises(DestinationConflict):
        await storage.stream_upload("org/a", chunks(b""))
    with pytest.raises(DestinationConflict):
        await storage.stream_upload("x/big", chunks(b""))
    assert len(await bucket.visible()) == 3


async def test_a_marker_of_a_folder_is_no_file(bucket: Bucket, storage: ObjectStorage) -> None:
    await bucket.put({"org/": b"", f"{DESTINATION}/": b""})
    await LARGE.bring(storage, DESTINATION)
    assert (await bucket.visible())[f"{DESTINATION}/small"] == b"s"


async def test_a_key_longer_than_the_protocol_has_is_refused(storage: ObjectStorage) -> None:
    model = Model({"/".join(["x" * 200] * 6): b""})
    with pytest.raises(PathRefused, match="1024"):
        await storage.check_conflicts(model.plan(DESTINATION), FAIL)
    with pytest.raises(PathRefused, match="1024"):
        await storage.stream_upload("/".join(["ü" * 100] * 6), chunks(b""))


async def test_what_nobody_changed_is_known_without_reading_it(storage: ObjectStorage, watch: Watch) -> None:
    model = Model({"a": b"1", "b": b"2"})  # one with a sha256 stated, one with a blob id
    await model.bring(storage, DESTINATION)
    watch.made.clear()
    again = replace(model, task_id=uuid4())
    assert len(await storage.present_files(again.plan(DESTINATION))) == 2
    read = [query for method, query in watch.made if method == "GET" and "list-type" not in query]
    assert len(read) == 1
    assert ".stowage/" in read[0]


async def test_a_race_is_lost_without_a_trace(
    bucket: Bucket, storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await relay(storage, LARGE)
    user = f"{bucket.prefix}/{DESTINATION}/small"

    def race() -> None:
        bucket.client.put(user, b"the user's")

    Watch(3, race).install(monkeypatch)
    with pytest.raises(DestinationConflict, match="small"):
        await storage.publish(LARGE.plan(DESTINATION), LARGE.staged(), FAIL)
    assert await bucket.visible() == {f"{DESTINATION}/small": b"the user's"}
    # What was an upload was taken back into staging: with permission to overwrite, nothing has to be fetched again.
    await storage.publish(LARGE.plan(DESTINATION), LARGE.staged(), OVERWRITE)
    found = await bucket.visible()
    assert {path: found[f"{DESTINATION}/{path}"] for path in LARGE.files} == dict(LARGE.files)


async def test_other_bytes_than_the_verified_ones_are_not_published(
    bucket: Bucket, storage: ObjectStorage
) -> None:
    await relay(storage, LARGE)
    wrong = [
        file.model_copy(update={"sha256": "0" * 64}) if file.path == "big" else file
        for file in LARGE.staged()
    ]
    with pytest.raises(StorageFailure, match="not the verified one"):
        await storage.publish(LARGE.plan(DESTINATION), wrong, FAIL)
    assert await bucket.visible() == {}


# Around it.


async def test_room_is_what_the_setting_allows(s3_server: S3Server) -> None:
    with bucket_of(s3_server, limit_bytes=100) as bucket:
        await bucket.storage.reserve(100)
        await bucket.put({"a": b"x" * 40})
        await bucket.storage.reserve(60)
        with pytest.raises(QuotaExceeded, match="40 of the 100 bytes"):
            await bucket.storage.reserve(61)


async def test_the_limit_that_the_manager_tells_counts_too(bucket: Bucket, storage: ObjectStorage) -> None:
    await bucket.put({"a": b"x" * 40})
    await storage.open_staging(TASK)
    with pytest.raises(QuotaExceeded, match="40 of the 100 bytes"):
        await storage.reserve(61, task_id=TASK, limit=100)
    await storage.reserve(60, task_id=TASK, limit=100)
    await storage.insist_on_limit(TASK, limit=100)
    with pytest.raises(QuotaExceeded, match="may hold 99 by now"):
        await storage.insist_on_limit(TASK, limit=99)
    await bucket.put({"b": b"y"})
    with pytest.raises(QuotaExceeded, match="101 bytes"):
        await storage.insist_on_limit(TASK, limit=100)
    await storage.insist_on_limit(TASK)


async def test_a_signed_url_stays_in_its_folder(bucket: Bucket, storage: ObjectStorage) -> None:
    await bucket.put({"a/b c": b"content", "other": b"o"})
    url = await storage.presign("GET", "a", "b c", 60)
    assert (await asyncio.to_thread(httpx.get, url)).content == b"content"
    for key in ("../other", "/other", ".staging/x", ".stowage/org%2Fmodel@main.json", "", "x/../../other"):
        with pytest.raises(PathRefused):
            await storage.presign("PUT", "a", key, 60)
    with pytest.raises(BadRequest):
        await storage.presign("GET", "a", "b c", 0)


async def test_a_check_says_what_is_wrong(
    s3_server: S3Server, bucket: Bucket, storage: ObjectStorage
) -> None:
    await storage.check()
    missing = ObjectStorage(
        "s", bucket.section.model_copy(update={"bucket": "no-such-bucket"}), lambda: s3_server.credentials
    )
    with pytest.raises(StorageFailure, match="bucket is not there"):
        await missing.check()
    refused = ObjectStorage("s", bucket.section, lambda: Credentials("nobody", "x"))
    with pytest.raises(ReadOnlyStorage, match="check the keys"):
        await refused.check()
    for made in (missing, refused):
        made.client.close()


async def test_a_file_of_the_machine_is_copied_into_an_upload(storage: ObjectStorage, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(BIG)
    staging = await storage.open_staging(TASK, destination=DESTINATION)

    def work() -> object:
        with (tmp_path / "big").open("rb") as source, staging.open_writer(planned("big", BIG)) as writer:
            writer.copy_from(source.fileno())
            return writer.finish()

    assert await asyncio.to_thread(work) == digests_of(BIG, blob_id=False)
