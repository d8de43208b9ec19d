"""The registry client against a hub on a real socket, well-behaved and not."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from proxy_client.errors import (
    SourceChanged,
    SourceError,
    SourceForbidden,
    SourceInvalid,
    SourceNotFound,
    SourceUnavailable,
)
from storage_proxy.registries.huggingface import HuggingFaceRegistry
from storage_proxy.registries.patience import retry_after_seconds
from storage_proxy.settings import ArtifactRegistrySection, TransferSection
from storage_proxy.storages.base import PlannedFile
from storage_proxy.transfer.line import Line, on_line
from stowage.hub.content import lfs_pointer
from tests.e2e.world import Files
from tests.faults.hub import FaultHub, Rule
from tests.faults.models import make_model

pytestmark = pytest.mark.anyio
HASTY = TransferSection(
    retries=3, backoff_initial=0.01, backoff_max=0.02, stall_timeout=1.0, retry_after_max=3.0
)
FILES: Files = {
    "README.md": b"# Hello\n",
    "weights.bin": 3 << 20,
    "folder/config.json": b"{}",
    "empty.txt": b"",
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultHub]:
    make_model(tmp_path, "org/name", FILES)
    with FaultHub(tmp_path, page_size=2) as running:
        yield running


@pytest.fixture
async def registry(hub: FaultHub) -> AsyncIterator[HuggingFaceRegistry]:
    opened = HuggingFaceRegistry("hub", ArtifactRegistrySection(url=hub.url), HASTY)
    yield opened
    opened.close()


async def fetch(
    registry: HuggingFaceRegistry, path: str = "weights.bin", start: int = 0, stop: int | None = None
) -> tuple[int, int, bytes]:
    """Ask for a range of a file, to its end unless told; returns the range that came, and its bytes."""
    commit = await registry.resolve("org/name", "main")
    (file,) = [file for file in await registry.list_files("org/name", commit) if file.path == path]

    def read(line: Line) -> tuple[int, int, bytes]:
        content, view = bytearray(), memoryview(bytearray(1 << 16))
        asked = registry.open_range("org/name", commit, file, start, stop or file.size, line)
        with asked as stream:
            while count := stream.readinto(view):
                content += view[:count]
        return stream.offset, stream.stop, bytes(content)

    return await on_line(read)


async def test_every_file_is_listed_over_all_pages_with_its_digest(
    registry: HuggingFaceRegistry, hub: FaultHub
) -> None:
    files = await registry.list_files("org/name", await registry.resolve("org/name", "main"))
    assert len(hub.seen("/tree/")) > 1
    listed = {file.path: file for file in files}
    assert set(listed) == set(FILES)
    content = (hub.directory / "org/name/weights.bin").read_bytes()
    assert listed["weights.bin"].sha256 == hashlib.sha256(content).hexdigest()
    assert listed["weights.bin"].size == len(content)
    blob = hashlib.sha1(b"blob 2\0{}", usedforsecurity=False).hexdigest()
    assert (listed["folder/config.json"].blob_id, listed["folder/config.json"].sha256) == (blob, None)


async def test_a_listing_of_thousands_comes_whole_over_its_pages(tmp_path: Path) -> None:
    files: Files = {f"{number % 50}/ü {number}.json": b"%d" % number for number in range(3000)}
    make_model(tmp_path, "org/many", files)
    with FaultHub(tmp_path, page_size=700) as hub:
        registry = HuggingFaceRegistry("hub", ArtifactRegistrySection(url=hub.url), HASTY)
        found = await registry.list_files("org/many", await registry.resolve("org/many", "main"))
        registry.close()
        pages = len(hub.seen("/tree/"))
    assert {file.path: file.size for file in found} == {
        path: len(data) for path, data in files.items() if isinstance(data, bytes)
    }
    assert len(found) == len(files)
    assert pages >= 3000 / 700


async def test_a_file_that_looks_like_a_pointer_is_a_file_like_any_other(tmp_path: Path) -> None:
    pointer = lfs_pointer("a" * 64, 1 << 40)
    make_model(tmp_path, "org/name", {"weights.bin": pointer})
    with FaultHub(tmp_path) as hub:
        registry = HuggingFaceRegistry("hub", ArtifactRegistrySection(url=hub.url), HASTY)
        (file,) = await registry.list_files("org/name", await registry.resolve("org/name", "main"))
        content = await fetch(registry)
        registry.close()
    blob = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer, usedforsecurity=False).hexdigest()
    assert (file.size, file.blob_id, file.sha256) == (len(pointer), blob, None)
    assert content == (0, len(pointer), pointer)


async def test_a_model_is_described_with_all_its_branches(
    registry: HuggingFaceRegistry, hub: FaultHub
) -> None:
    make_model(hub.directory, "org/name", {"README.md": b"half\0", "x.json": b"[]"}, branch="fp16")
    model = await registry.get_model("org/name", None)
    revisions = {revision.name: revision for revision in model.revisions}
    assert set(revisions) == {"main", "fp16"}
    assert revisions["main"].size == (3 << 20) + 10
    assert revisions["main"].readme == "# Hello\n"
    assert revisions["fp16"].readme == "half\N{REPLACEMENT CHARACTER}"
    assert revisions["fp16"].commit == await registry.resolve("org/name", "fp16")


async def test_search_gives_at_most_the_limit(registry: HuggingFaceRegistry, hub: FaultHub) -> None:
    for number in range(5):
        make_model(hub.directory, f"org/other-{number}", {"a.json": b"{}"})
    found = await registry.search("other", limit=3, sort="downloads")
    assert len(found) == 3
    assert all(model.model_id.startswith("org/other-") for model in found)


async def test_a_range_of_a_file_comes_alone(registry: HuggingFaceRegistry, hub: FaultHub) -> None:
    content = (hub.directory / "org/name/weights.bin").read_bytes()
    assert await fetch(registry) == (0, len(content), content)
    assert await fetch(registry, start=1000) == (1000, len(content), content[1000:])
    assert await fetch(registry, start=1000, stop=5000) == (1000, 5000, content[1000:5000])
    assert [request.headers.get("range") for request in hub.downloads()] == [
        *(None, "bytes=1000-3145727", "bytes=1000-4999")
    ]


async def test_a_server_without_range_says_that_the_whole_file_comes(
    registry: HuggingFaceRegistry, hub: FaultHub
) -> None:
    hub.set(Rule(path="/resolve/.*weights", ignore_range=True))
    start, stop, content = await fetch(registry, start=1000, stop=5000)
    assert (start, stop, len(content)) == (0, 3 << 20, 3 << 20)


@pytest.mark.parametrize(
    ("rule", "error"),
    [
        (Rule(path="/resolve/", content_range="bytes 0-1/2"), SourceInvalid),
        (Rule(path="/resolve/", headers={"content-encoding": "gzip"}), SourceInvalid),
        (Rule(path="/resolve/", resize=5), SourceInvalid),
        (Rule(path="/resolve/", resize=-5), SourceInvalid),
        (Rule(path="/resolve/", redirect="{path}"), SourceInvalid),
        (Rule(path="/resolve/", redirect="ftp://127.0.0.1/x"), SourceInvalid),
        (Rule(path="/resolve/", headers={"x-repo-commit": "0" * 40}), SourceChanged),
        (Rule(path="/resolve/", headers={"x-linked-etag": '"' + "0" * 64 + '"'}), SourceChanged),
        (Rule(path="/resolve/", headers={"x-linked-size": "1"}), SourceChanged),
        (Rule(path="/resolve/", status=404, headers={"x-error-code": "EntryNotFound"}), SourceNotFound),
        (Rule(path="/resolve/", status=401, headers={"x-error-code": "RepoNotFound"}), SourceNotFound),
        (Rule(path="/resolve/", status=403, headers={"x-error-code": "GatedRepo"}), SourceForbidden),
        (Rule(path="/resolve/", status=500), SourceUnavailable),
        (Rule(path="/resolve/", status=503), SourceUnavailable),
        (Rule(path="/resolve/", hang_up=True), SourceUnavailable),
        (Rule(path="/api/", html=True), SourceInvalid),
        (Rule(path="/api/", status=404), SourceNotFound),
        (Rule(path="/tree/", body=b"[{}]", status=200), SourceInvalid),
        (Rule(path="/tree/", body=b'[{"type":"file","path":"a","size":1}]', status=200), SourceInvalid),
        (Rule(path="/tree/", headers={"link": '<http://127.0.0.2:1/x>; rel="next"'}), SourceNotFound),
        (Rule(path="/tree/", headers={"link": '<?recursive=true>; rel="next"'}), SourceInvalid),
        (Rule(path="/tree/", status=404, headers={"x-error-code": "RevisionNotFound"}), SourceChanged),
        (Rule(path="/resolve/", status=404, headers={"x-error-code": "RevisionNotFound"}), SourceChanged),
    ],
)
async def test_a_wrong_answer_is_a_clear_error(
    registry: HuggingFaceRegistry, hub: FaultHub, rule: Rule, error: type[SourceError]
) -> None:
    hub.set(rule)
    with pytest.raises(SourceError) as caught:
        await fetch(registry, start=7)
    assert type(caught.value) is error or isinstance(caught.value, SourceUnavailable) is (
        error is SourceUnavailable
    )


async def test_the_hubs_error_code_and_message_are_passed_on_made_harmless(
    registry: HuggingFaceRegistry, hub: FaultHub
) -> None:
    hub.set(
        Rule(
            path="/api/",
            status=403,
            headers={"x-error-code": "GatedRepo", "x-error-message": "ask\xad me"},
        )
    )
    with pytest.raises(SourceForbidden, match="GatedRepo") as caught:
        await registry.resolve("org/name", "main")
    assert "\xad" not in caught.value.message


async def test_two_bad_answers_are_survived(registry: HuggingFaceRegistry, hub: FaultHub) -> None:
    hub.set(Rule(path="/api/", status=503, times=2))
    assert await registry.resolve("org/name", "main")


async def test_retry_after_is_waited_for(registry: HuggingFaceRegistry, hub: FaultHub) -> None:
    hub.set(Rule(path="/api/", status=429, headers={"retry-after": "1"}, times=1))
    await registry.resolve("org/name", "main")
    first, second = hub.seen("/api/")
    assert second.time - first.time >= 1


async def test_a_retry_after_beyond_the_setting_fails_at_once(
    registry: HuggingFaceRegistry, hub: FaultHub
) -> None:
    hub.set(Rule(path="/api/", status=429, headers={"retry-after": "3600"}))
    with pytest.raises(SourceUnavailable):
        await registry.resolve("org/name", "main")
    assert len(hub.requests) == 1


async def test_the_token_goes_to_the_endpoint_alone(hub: FaultHub, tmp_path: Path) -> None:
    make_model(tmp_path / "cdn", "org/name", FILES)
    (tmp_path / "token").write_text("hf_secret\n")
    with FaultHub(tmp_path / "cdn") as cdn:
        section = ArtifactRegistrySection(url=hub.url, token_file=tmp_path / "token")
        registry = HuggingFaceRegistry("hub", section, HASTY)
        hub.set(Rule(path="/resolve/", redirect=f"{cdn.url}{{path}}"))
        start, stop, content = await fetch(registry)
        registry.close()
        assert (start, stop, len(content)) == (0, 3 << 20, 3 << 20)
        assert all(seen.headers.get("authorization") == "Bearer hf_secret" for seen in hub.requests)
        assert cdn.downloads()
        assert not any("authorization" in seen.headers for seen in cdn.requests)


async def test_a_hub_that_is_down_is_unavailable(registry: HuggingFaceRegistry, hub: FaultHub) -> None:
    hub.stop()
    with pytest.raises(SourceUnavailable):
        await registry.get_model("org/name", "main")


async def test_a_body_that_breaks_off_is_unavailable(registry: HuggingFaceRegistry, hub: FaultHub) -> None:
    hub.set(Rule(path="/resolve/", drop_after=1000))
    with pytest.raises(SourceUnavailable):
        await fetch(registry)


async def test_a_stalled_body_ends(registry: HuggingFaceRegistry, hub: FaultHub) -> None:
    hub.set(Rule(path="/resolve/", stall_after=1000))
    with pytest.raises(SourceUnavailable):
        await fetch(registry)


def test_both_forms_of_retry_after_are_read() -> None:
    assert retry_after_seconds("7") == 7.0
    later = datetime.now(UTC) + timedelta(seconds=100)
    assert 95 < (retry_after_seconds(format_datetime(later, usegmt=True)) or 0) <= 100
    assert retry_after_seconds("soon") is None
    assert retry_after_seconds("\N{SUPERSCRIPT TWO}") is None
    assert retry_after_seconds(None) is None


def test_a_digest_decides_whether_a_file_matches() -> None:
    from storage_proxy.storages.base import Digests  # noqa: PLC0415 -- used here alone

    found = Digests(size=2, sha256="a" * 64, blob_id="b" * 40)
    assert PlannedFile(path="x", size=2, sha256="a" * 64).matches(found)
    assert PlannedFile(path="x", size=2, blob_id="b" * 40).matches(found)
    assert not PlannedFile(path="x", size=3, sha256="a" * 64).matches(found)
    assert not PlannedFile(path="x", size=2, sha256="c" * 64).matches(found)


async def test_the_registrys_word_on_safety_is_asked_for_only_where_it_is_wanted(hub: FaultHub) -> None:
    page = (
        b'[{"type": "file", "path": "a", "oid": "%s", "size": 1, "securityFileStatus": {"status": "unsafe"}}]'
    )
    commit = "0" * 40
    hub.set(Rule(path="expand=true", body=page % commit.encode(), status=200))
    section = ArtifactRegistrySection(url=hub.url)

    asking = HuggingFaceRegistry("hub", section, HASTY, security=True)
    silent = HuggingFaceRegistry("hub", section, HASTY)
    try:
        (told,) = await asking.list_files("org/name", commit)
        real = await silent.resolve("org/name", "main")
        untold = await silent.list_files("org/name", real)
    finally:
        asking.close()
        silent.close()

    assert told.security == "unsafe"
    assert {file.security for file in untold} == {None}
