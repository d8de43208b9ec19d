"""What administrators entered at the manager, at a proxy with real tables: handed over, kept, used and tried."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from migrations import migrate_proxy
from proxy_client.client import StorageProxyClient
from proxy_client.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    NotFound,
    PathRefused,
    SourceForbidden,
    SourceInvalid,
    SourceUnavailable,
    StorageFailure,
    StowageError,
)
from proxy_client.wire import ConfigurationCheck, PresignOrder, ProxyConfiguration, StoredArtifact
from storage_proxy.api import routes
from storage_proxy.settings import load_settings
from storage_proxy.site import Site
from tests.conftest import PostgresServer
from tests.faults.hub import FaultHub, Rule
from tests.faults.models import make_model
from tests.proxy.test_jobs import SCHEMA
from tests.s3.server import S3Server
from tests.storages.models import Model

pytestmark = pytest.mark.anyio

SECRET = "s" * 40
TOKEN = "hf_planted_token"


@dataclass
class Process:
    """One process of the proxy: its parts, and a manager's client for its API."""

    site: Site
    client: StorageProxyClient


@dataclass
class Installation:
    """A proxy's configuration and tables; `process` starts another process of it."""

    directory: Path
    database_url: str

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Process]:
        async with Site.open(load_settings(self.directory / "proxy.toml")) as site:
            app = Starlette(routes=routes(site))
            secret = (self.directory / "secret").read_text().split()[0]
            client = StorageProxyClient(
                "local", "http://proxy", secret, transport=httpx.ASGITransport(app=app)
            )
            try:
                yield Process(site, client)
            finally:
                await client.aclose()


@pytest.fixture
async def installation(tmp_path: Path, proxy_database_url: str) -> Installation:
    await migrate_proxy(proxy_database_url, SCHEMA)
    (tmp_path / "database").write_text(proxy_database_url)
    (tmp_path / "secret").write_text(SECRET)
    for name in ("archive", "roots", "volume"):
        (tmp_path / name).mkdir()
    (tmp_path / "proxy.toml").write_text(
        """
        [proxy]
        name = "local"
        database-file = "database"
        secret-file = "secret"
        manager-url = "http://127.0.0.1:1"
        storage-roots = ["roots", "volume"]
        [transfer]
        backoff-initial = 0.01
        [volume.volume1]
        path = "volume"
        [artifact-storages.archive]
        path = "archive"
        [artifact-registries.declared]
        url = "http://127.0.0.1:1"
        """
    )
    return Installation(tmp_path, proxy_database_url)


@pytest.fixture
async def start(
    installation: Installation,
) -> AsyncIterator[Callable[[], Any]]:
    async with AsyncExitStack() as stack:
        yield lambda: stack.enter_async_context(installation.process())


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultHub]:
    directory = tmp_path / "hub"
    make_model(directory, "org/name", {"README.md": b"# Hello", "weights.bin": 5000})
    make_model(directory, "org/name", {"weights.bin": 100}, branch="v1")
    with FaultHub(directory) as running:
        yield running


def pieces(*storages: dict[str, Any], registries: list[dict[str, Any]] | None = None) -> ProxyConfiguration:
    return ProxyConfiguration.model_validate(
        {"registries": registries or [], "artifact_storages": list(storages)}
    )


def shelf(installation: Installation, path: str = "roots/shelf", name: str = "shelf") -> dict[str, Any]:
    return {"type": "vfs", "name": name, "base_path": str(installation.directory / path)}


def bucket(server: S3Server, name: str | None, **changes: str) -> dict[str, Any]:
    keys = server.credentials
    return {
        "type": "s3",
        "name": "minio",
        "endpoint": server.endpoint,
        "region": server.region,
        "bucket": name,
        "access_key": keys.access_key,
        "secret_key": keys.secret_key,
    } | changes


async def names(process: Process) -> dict[str, str]:
    return {storage.name: storage.type for storage in await process.client.artifact_storages()}


async def test_every_process_works_at_once_with_what_one_was_told(
    installation: Installation, start: Any, hub: FaultHub
) -> None:
    first, second = await start(), await start()
    assert (await first.client.configuration()).digest is None
    with pytest.raises(NotFound, match="enter it at the manager"):
        await second.client.search_models("mine", search=None, limit=5)
    registry = {"name": "mine", "url": hub.url, "token": TOKEN}
    told = pieces(shelf(installation), registries=[registry])
    assert (await first.client.put_configuration(told)).digest == told.digest
    for process in (first, second):
        assert (await process.client.configuration()).digest == told.digest
        assert await names(process) == {"archive": "vfs", "shelf": "vfs"}
        assert [model.model_id for model in await process.client.search_models("mine", search=None, limit=5)]
    assert {request.headers.get("authorization") for request in hub.requests} == {f"Bearer {TOKEN}"}
    # What is gone from the next piece is gone from every process, and a new token is used.
    told = pieces(registries=[registry | {"token": "hf_new"}])
    await second.client.put_configuration(told)
    hub.forget()
    await first.client.search_models("mine", search=None, limit=5)
    assert {request.headers.get("authorization") for request in hub.requests} == {"Bearer hf_new"}
    assert await names(first) == {"archive": "vfs"}


async def test_it_outlives_every_process_and_rests_encrypted(
    installation: Installation, hub: FaultHub, postgres_server: PostgresServer
) -> None:
    told = pieces(registries=[{"name": "mine", "url": hub.url, "token": TOKEN}])
    async with installation.process() as process:
        await process.client.put_configuration(told)
        rows = await process.site.jobs.ask("fetch", "SELECT * FROM entered")
        assert TOKEN not in str(rows)
        assert hub.url not in str(rows)
    async with installation.process() as process:
        assert (await process.client.configuration()).digest == told.digest
        await process.client.get_model("mine", "org/name")
    # The secret is replaced, the old one still accepted, then gone: then the manager has to tell it again.
    (installation.directory / "secret").write_text(f"{'n' * 40}\n{SECRET}")
    async with installation.process() as process:
        assert (await process.client.configuration()).digest == told.digest
    (installation.directory / "secret").write_text("n" * 40)
    async with installation.process() as process:
        assert (await process.client.configuration()).digest is None
        assert await names(process) == {"archive": "vfs"}
        await process.client.put_configuration(told)
        assert (await process.client.configuration()).digest == told.digest


async def test_the_configuration_of_the_proxy_wins_and_one_bad_entry_harms_no_other(
    installation: Installation, start: Any, hub: FaultHub
) -> None:
    process = await start()
    outside = {"type": "vfs", "name": "outside", "base_path": "/somewhere/else"}
    here = shelf(installation, name="archive")
    registries = [{"name": "declared", "url": hub.url}, {"name": "mine", "url": "http://h:99999"}]
    told = pieces(outside, here, shelf(installation), registries=registries)
    await process.client.put_configuration(told)
    assert await names(process) == {"archive": "vfs", "shelf": "vfs"}
    with pytest.raises(SourceUnavailable):
        await process.client.search_models("declared", search=None, limit=1)
    assert hub.requests == []


async def test_running_imports_go_on_with_what_they_began_with(
    installation: Installation, start: Any
) -> None:
    process = await start()
    await process.client.put_configuration(pieces(shelf(installation)))
    began = process.site.storage_pool.as_now()
    kept = process.site.storage_pool.get_storage("shelf")
    await process.client.put_configuration(pieces(shelf(installation), shelf(installation, "roots/b", "b")))
    assert process.site.storage_pool.get_storage("shelf") is kept
    await process.client.put_configuration(pieces())
    assert began.get_storage("shelf") is kept


# What stored revisions are asked for.


async def test_a_stored_revision_is_removed_and_forgotten(installation: Installation, start: Any) -> None:
    process = await start()
    await process.client.put_configuration(pieces(shelf(installation)))
    (installation.directory / "roots/shelf").mkdir()
    await process.client.artifact_storages()
    storage = process.site.storage_pool.get_storage("shelf")
    model = Model({"a": b"1", "b": b"2"})
    manifest = await model.bring(storage, "org/model/main")
    holdings = process.site.pipeline.holdings
    digests = {f"org/model/main/{file.path}": file for file in manifest.files}
    await holdings.remember("shelf", {path: _digests(file) for path, file in digests.items()})
    stored = StoredArtifact(model_id="org/model", revision="main", path="org/model/main")
    for _ in range(2):
        await process.client.unpublish("shelf", stored)
    assert not (installation.directory / "roots/shelf/org").exists()
    assert await process.site.jobs.ask("fetchval", "SELECT count(*) FROM holdings") == 0
    with pytest.raises(NotFound):
        await process.client.unpublish("nowhere", stored)
    order = PresignOrder(method="GET", path="org/model/main", key="a", expires_seconds=60)
    with pytest.raises(BadRequest, match="no URLs"):
        await process.client.presign("shelf", order)


def _digests(file: Any) -> Any:
    from storage_proxy.storages.base import Digests  # noqa: PLC0415

    return Digests(file.size, file.sha256, None)


async def test_a_model_without_details_costs_two_requests(start: Any, hub: FaultHub) -> None:
    process = await start()
    await process.client.put_configuration(pieces(registries=[{"name": "mine", "url": hub.url}]))
    whole = await process.client.get_model("mine", "org/name")
    hub.forget()
    short = await process.client.get_model("mine", "org/name", details=False)
    assert len(hub.requests) == 2
    assert {(one.name, one.commit) for one in short.revisions} == {
        (one.name, one.commit) for one in whole.revisions
    }
    assert {one.name for one in short.revisions} == {"main", "v1"}
    assert [(one.described, one.size, one.readme) for one in short.revisions] == [(False, None, None)] * 2
    named = await process.client.get_model("mine", "org/name", "v1", details=False)
    assert [(one.name, one.described, one.size) for one in named.revisions] == [("v1", False, None)]


# Trying.


async def refusal(process: Process, **asked: Any) -> StowageError:
    with pytest.raises(StowageError) as caught:
        await process.client.check_configuration(ConfigurationCheck.model_validate(asked))
    return caught.value


async def test_a_registry_is_tried_with_its_token(start: Any, hub: FaultHub) -> None:
    process = await start()
    told = {"name": "mine", "url": hub.url, "token": TOKEN}
    await process.client.check_configuration(ConfigurationCheck.model_validate({"registry": told}))
    assert {request.headers["authorization"] for request in hub.requests} == {f"Bearer {TOKEN}"}
    hub.set(Rule(status=401, headers={"x-error-message": f"no such token {TOKEN}"}))
    found = await refusal(process, registry=told)
    assert (type(found), found.field) == (SourceForbidden, "token")
    assert TOKEN not in found.message
    hub.set(Rule(html=True))
    assert type(await refusal(process, registry=told)) is SourceInvalid
    hub.set(Rule(hang_up=True))
    assert type(await refusal(process, registry=told)) is SourceUnavailable
    found = await refusal(process, registry=told | {"name": "declared"})
    assert (type(found), found.field) == (Conflict, "name")
    assert isinstance(await refusal(process, registry=told | {"url": "http://h:99999"}), StowageError)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("elsewhere", BadRequest),
        ("roots/../archive", PathRefused),
        ("roots/a/.staging/b", PathRefused),
        ("volume", Conflict),
        ("volume/abc", Conflict),
        ("roots/file/below", StowageError),
        ("roots/link/below", StowageError),
    ],
)
async def test_a_directory_lies_where_the_operator_allows(
    installation: Installation, start: Any, path: str, kind: type[StowageError]
) -> None:
    process = await start()
    (installation.directory / "roots/file").write_bytes(b"")
    (installation.directory / "roots/link").symlink_to(installation.directory / "archive")
    found = await refusal(process, artifact_storage=shelf(installation, path))
    assert isinstance(found, kind)
    assert found.code != "INTERNAL"
    assert str(installation.directory) not in found.message
    assert list((installation.directory / "archive").iterdir()) == []


async def test_a_directory_is_made_and_left_empty(installation: Installation, start: Any) -> None:
    process = await start()
    for _ in range(2):
        asked = ConfigurationCheck.model_validate({"artifact_storage": shelf(installation, "roots/a/b")})
        await process.client.check_configuration(asked)
    visible = [path for path in (installation.directory / "roots").rglob("*") if path.is_file()]
    assert visible == []


async def test_a_bucket_is_tried_with_its_keys(start: Any, s3_server: S3Server) -> None:
    process = await start()

    async def fault(name: str | None, **changes: str) -> tuple[type[StowageError], str | None]:
        found = await refusal(process, artifact_storage=bucket(s3_server, name, **changes))
        assert s3_server.credentials.secret_key not in found.message
        return type(found), found.field

    with s3_server.bucket() as there:
        for name in (None, there):
            asked = ConfigurationCheck.model_validate({"artifact_storage": bucket(s3_server, name)})
            await process.client.check_configuration(asked)
            assert await fault(name, secret_key="wrong") == (Forbidden, "secret_key")
            assert (await fault(name, access_key="nobody"))[0] is Forbidden
            assert (await fault(name, endpoint="http://127.0.0.1:1"))[0] is StorageFailure
        with closing(s3_server.client(there)) as client:
            assert list(client.objects("")) == []
    assert await fault("no-such-bucket") == (StorageFailure, "bucket")
    for endpoint in ("http://h/path", "http://h:99999"):
        assert (await fault(None, endpoint=endpoint))[0] is BadRequest


async def test_what_answers_but_is_no_s3_is_said(start: Any, hub: FaultHub, s3_server: S3Server) -> None:
    process = await start()
    for rule in (Rule(html=True), Rule(status=404)):
        hub.set(rule)
        found = await refusal(process, artifact_storage=bucket(s3_server, None, endpoint=hub.url))
        assert type(found) is StorageFailure


# Which URLs.


async def test_a_url_never_leaves_the_folder_of_its_revision(start: Any, s3_server: S3Server) -> None:
    process = await start()
    with s3_server.bucket() as name, closing(s3_server.client(name)) as client:
        await process.client.put_configuration(pieces(bucket(s3_server, name)))
        for key in ("org/a/main/w", "org/a/main-fp16/w", "org/b/main/w", "w", "org/a/main/%2e%2e/w"):
            client.put(key, key.encode())

        async def url(method: str, key: str) -> str:
            order = {"method": method, "path": "org/a/main", "key": key, "expires_seconds": 60}
            return (await process.client.presign("minio", PresignOrder.model_validate(order))).url

        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(await url("GET", "w"))).content == b"org/a/main/w"
            # A percent sign is a character of a name like any other: the server decodes it once, to itself.
            assert (await http.get(await url("GET", "%2e%2e/w"))).content == b"org/a/main/%2e%2e/w"
            for key in ("%2e%2e/main-fp16/w", "..%2fmain-fp16%2fw", "%2e%2e%2f%2e%2e%2fb%2fmain%2fw"):
                assert (await http.get(await url("GET", key))).status_code == httpx.codes.NOT_FOUND
            put = await http.put(await url("PUT", "%2e%2e/main-fp16/w"), content=b"written")
            assert put.is_success
            signed = await url("GET", "w")
            for other in ("org/a/main-fp16/w", "org/b/main/w", "org/a/main/../main-fp16/w", "w"):
                moved = signed.replace("org/a/main/w", other)
                assert (await http.get(moved)).status_code == httpx.codes.FORBIDDEN, other
        for key in (
            "../main-fp16/w",
            "/w",
            "/org/b/main/w",
            "a/../../b",
            "./w",
            "a//w",
            ".staging/x",
            "w/",
            "-fp16/../w",
        ):
            with pytest.raises(StowageError) as caught:
                await url("GET", key)
            assert caught.value.code == "PATH_REFUSED"
        assert b"".join(client.stream("org/a/main-fp16/w")) == b"org/a/main-fp16/w"
        assert json.dumps(signed).count(s3_server.credentials.secret_key) == 0
