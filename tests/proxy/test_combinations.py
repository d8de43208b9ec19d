"""Directories, buckets and folders as DOWNLOAD, VERIFY and ARCHIVE: every combination that makes sense."""

from uuid import uuid4

import pytest

from proxy_client.errors import BadRequest
from proxy_client.wire import ImportState
from tests.e2e.world import Files
from tests.faults.hub import Rule
from tests.proxy.running import MIB, Proxy
from tests.storages.strace import turn

pytestmark = pytest.mark.anyio

DOWNLOAD, VERIFY = ("a", "bucket", "folder"), ("a", "b", "folder")
ARCHIVE = ("b", "bucket", "other-bucket", "folder")
A_THIRD = [pytest.param(3, id="a third"), pytest.param(1, id="all", marks=pytest.mark.soak)]
FEW = [
    ("a", "a", "bucket"),
    ("bucket", "b", "bucket"),
    ("bucket", "a", "other-bucket"),
    ("bucket", "a", "folder"),
]


def files() -> Files:
    """Return what no storage holds yet. Parts have 8 MiB: the large file is sent to a bucket in two."""
    return {
        "weights/big.bin": 9 * MIB + 3,
        "weights/small.bin": 300_000,
        "config.json": b'{"of": "%s"}' % uuid4().hex.encode(),
        "empty": b"",
        "ünï/한글 b+c%20.txt": uuid4().hex.encode(),
    }


@pytest.mark.parametrize("step", A_THIRD)
@pytest.mark.parametrize("archive", ARCHIVE)
@pytest.mark.parametrize("download", DOWNLOAD)
async def test_it_arrives_whole_and_leaves_nothing_elsewhere(
    proxy: Proxy, download: str, archive: str, step: int
) -> None:
    chosen = VERIFY if step == 1 else (VERIFY[(turn(step) + DOWNLOAD.index(download)) % step],)
    models = {verify: proxy.model(files()) for verify in chosen}
    tasks = [await proxy.order(model, download, verify, archive) for verify, model in models.items()]

    reports = [await proxy.succeeded(task_id) for task_id in tasks]

    for (verify, model), report in zip(models.items(), reports, strict=True):
        assert await proxy.digests(archive, model) == model.digests
        for where in {download, verify} - {archive}:
            assert await proxy.digests(where, model) == {}
        assert (report.files_done, report.bytes_done) == (len(model.digests), report.bytes_total)
        assert proxy.hub.sent(model.id) == report.bytes_total
    assert await proxy.staged() == []


@pytest.mark.parametrize(("download", "verify", "archive"), FEW)
@pytest.mark.parametrize("fault", [Rule(flip_at=MIB), Rule(status=404)], ids=["flipped byte", "404"])
async def test_a_failure_leaves_nothing_anywhere(
    proxy: Proxy, download: str, verify: str, archive: str, fault: Rule
) -> None:
    model = proxy.model(files())
    fault.path = f"{model.id}/resolve/.*big.bin"
    proxy.hub.set(fault)

    report = await proxy.ended(await proxy.order(model, download, verify, archive))

    assert report.state is ImportState.FAILED
    assert await proxy.staged() == []
    for where in {download, verify, archive}:
        assert await proxy.digests(where, model) == {}


@pytest.mark.parametrize(("download", "verify", "archive"), FEW)
async def test_an_update_fetches_what_changed_and_removes_what_is_gone(
    proxy: Proxy, download: str, verify: str, archive: str
) -> None:
    model = proxy.model(files())
    await proxy.succeeded(await proxy.order(model, download, verify, archive))
    model.becomes(
        {"weights/big.bin": 9 * MIB + 3, "empty": b"", "config.json": b'{"of": "%s"}' % uuid4().hex.encode()}
    )
    proxy.hub.forget()

    await proxy.succeeded(await proxy.order(model, download, verify, archive))

    assert await proxy.digests(archive, model) == model.digests
    assert [request.path.rpartition("/")[2] for request in proxy.hub.downloads(model.id)] == ["config.json"]
    assert await proxy.staged() == []


async def test_what_a_bucket_holds_is_not_fetched_again(proxy: Proxy) -> None:
    model = proxy.model(files())
    await proxy.succeeded(await proxy.order(model, "a", "a", "bucket"))
    proxy.hub.forget()

    report = await proxy.succeeded(await proxy.order(model, "folder", "folder", "folder"))

    assert await proxy.digests("folder", model) == model.digests
    assert proxy.hub.downloads(model.id) == []
    assert report.bytes_reused == report.bytes_total


@pytest.mark.parametrize("where", ["bucket", "other-bucket"])
async def test_a_bucket_as_the_target_of_verify_is_refused(proxy: Proxy, where: str) -> None:
    with pytest.raises(BadRequest, match="verifiers need a file system") as refused:
        await proxy.order(proxy.model(files()), "a", where, "bucket")
    assert refused.value.field == "storage_step_mappings.verify"
