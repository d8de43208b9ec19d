"""The examples of docs/graphql.md, executed in their order."""

import asyncio
import json
from typing import Any

import httpx
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport

from storage_proxy.storages.s3_requests import S3Requests
from tests.e2e.world import World, wait_until
from tests.faults.models import make_model
from tests.graphql.examples import EXAMPLES, STORED, learn, variables_of
from tests.s3.server import S3Server

Json = dict[str, Any]
SUBSCRIPTIONS = ("Watch", "WatchRevision")


async def by_websocket(world: World, name: str, known: Json) -> list[Json]:
    """Subscribe as the page says, with another's client; returns every result until the end."""
    transport = WebsocketsTransport(
        url=world.stack.url.replace("http:", "ws:") + "/graphql",
        init_payload={"Authorization": f"Bearer {world.admin.token}"},
        subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL],
    )
    document = gql(EXAMPLES[name])
    document.variable_values = variables_of(name, known)
    async with Client(transport=transport) as session:
        return [result async for result in session.subscribe(document)]


async def by_stream(world: World, accept: str, name: str, known: Json) -> list[Json]:
    """Subscribe by POST; returns every result until the end."""
    headers = {"Authorization": f"Bearer {world.admin.token}", "Accept": accept}
    body = {"query": EXAMPLES[name], "variables": variables_of(name, known)}
    async with httpx.AsyncClient(timeout=20, trust_env=False) as http:
        text = (await http.post(f"{world.stack.url}/graphql", json=body, headers=headers)).text
    if accept == "text/event-stream":
        assert text.endswith("event: complete\ndata:\n\n")
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        return [json.loads(line)["data"] for line in lines]
    assert text.endswith("--graphql--\r\n")
    parts = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [part["payload"]["data"] for part in parts if part]


def test_the_examples_do_what_the_page_says(world: World) -> None:
    files = {"config.json": b"{}", "weights.bin": 100_000}
    digests = make_model(world.hub.directory, "sample/tiny-bert", files)
    for _ in range(4):  # lists that have several pages
        world.scan(world.model({"config.json": b"{}"}))
    guest = world.person()
    email = world.stack.graphql("{ me { email } }", token=guest.token)["me"]["email"]
    flagged = world.begin(world.model({"notes.txt": 10_000}), world.folder())  # bytes that are no text
    wait_until(lambda: world.task(flagged)["status"] == "NEEDS_APPROVAL", "it waits for no approval")
    known: Json = {"email": email, "waiting": flagged, "url": world.mirror.url}
    said: dict[str, Any] = {}
    for name in (name for name in EXAMPLES if name not in STORED):
        if name in SUBSCRIPTIONS:
            said[name] = asyncio.run(by_websocket(world, name, known))
            for accept in ("text/event-stream", "multipart/mixed"):
                assert asyncio.run(by_stream(world, accept, name, known))[-1] == said[name][-1]
            continue
        variables = variables_of(name, known)
        token = guest.token if name in {"Invitations", "Accept"} else world.admin.token
        answer = world.stack.post(EXAMPLES[name], variables, token=token)
        if name == "Refused":
            (error,) = answer["errors"]
            assert error["extensions"] == {"code": "BAD_REQUEST", "field": "id"}
            assert answer["data"]["me"] == {"email": "admin@localhost"}
        else:
            assert "errors" not in answer, (name, answer)
        said[name] = answer["data"]
        learn(name, answer["data"], known)

    pages = [said[name]["artifactRevisions"]["edges"] for name in ("FirstPage", "NextPage", "SecondPage")]
    assert [edge["node"] for edge in pages[1]] == [edge["node"] for edge in pages[2]]
    assert pages[0][0]["node"] not in [edge["node"] for edge in pages[1]]
    assert said["Watch"][-1]["importTaskUpdated"]["status"] == "SUCCEEDED"
    assert said["WatchRevision"][-1]["artifactImportProgressUpdated"]["status"] == "SCANNED"
    brought = {file["path"].rpartition("/")[2] for file in said["Files"]["vfolderFiles"]}
    assert brought >= set(digests)
    assert said["Cancel"]["cancelImportTask"]["task"]["status"] == "SUCCEEDED"
    assert said["Accept"]["acceptVfolderInvitation"]["invitation"]["vfolder"]["permission"] == "READ_ONLY"
    assert world.finished(flagged)["status"] == "SUCCEEDED"
    assert said["CreateRegistry"]["createHuggingfaceRegistry"]["huggingfaceRegistry"]["name"] == "ours"


def test_the_examples_of_object_storages_do_what_the_page_says(world: World, s3_server: S3Server) -> None:
    section = s3_server.section("stored-models")
    requests = S3Requests(section, "the page's bucket", lambda: s3_server.credentials)
    requests.ask("PUT", "", "making the bucket")
    requests.close()
    model = world.model({"config.json": b'{"stored": true}', "weights.bin": 1000})
    known: Json = {
        "endpoint": s3_server.endpoint,
        "accessKey": s3_server.credentials.access_key,
        "secretKey": s3_server.credentials.secret_key,
        "revision": world.scan(model)["id"],
    }
    for name in STORED:
        data = world.stack.graphql(EXAMPLES[name], variables_of(name, known))
        assert s3_server.credentials.secret_key not in str(data)
        learn(name, data, known)
        if name == "ImportIntoStorage":
            assert world.finished(known["task"])["status"] == "SUCCEEDED"
    url = data["getPresignedDownloadUrl"]["presignedUrl"]
    assert httpx.get(url, trust_env=False).content == b'{"stored": true}'
