"""The protocol graphql-transport-ws, whatever is asked over it."""

import json
from collections.abc import AsyncIterator

import pytest

from manager.graphql import socket
from manager.graphql.limits import MAX_BODY_BYTES
from proxy_client.errors import Unavailable
from tests.graphql.served import Json, Manager
from tests.graphql.sockets import WATCH, Served, serve
from tests.graphql.test_subscriptions import a_new_task

pytestmark = pytest.mark.anyio

ME = "{ me { email } }"
ADMIN = {"me": {"email": "admin@localhost"}}


@pytest.fixture
async def served(manager: Manager) -> AsyncIterator[Served]:
    async with serve(manager) as served:
        yield served


async def test_a_token_is_taken_from_the_payload_or_the_header(served: Served) -> None:
    token = served.manager.admin.token
    bearer = {"Authorization": f"Bearer {token}"}
    ways: list[tuple[dict[str, str], Json | None]] = [
        ({}, bearer),
        ({}, {"authorization": f"bearer {token}"}),
        ({}, {"token": token}),
        (bearer, {}),
        (bearer, None),
        ({"Authorization": "Bearer stw_wrong"}, bearer),
    ]
    for headers, payload in ways:
        async with served.opened(headers=headers) as client:
            await client.init(payload)
            await client.subscribe("a", ME)
            assert await client.next("a") == ADMIN


async def test_a_wrong_token_closes_with_4403(served: Served) -> None:
    wrong: list[Json] = [
        {},
        {"token": "stw_wrong"},
        {"token": 5},
        {"Authorization": served.manager.admin.token},
    ]
    for payload in wrong:
        async with served.opened() as client:
            await client.send(type="connection_init", payload=payload)
            assert await client.closed() == 4403, payload


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", 4400),
        ("[]", 4400),
        ('"connection_init"', 4400),
        ("{}", 4400),
        ('{"type": "start"}', 4400),
        ('{"type": "connection_init", "payload": []}', 4400),
        (json.dumps({"type": "subscribe", "id": "a", "payload": {"query": ME}}), 4401),
    ],
)
async def test_a_connection_begins_with_connection_init(served: Served, text: str, code: int) -> None:
    async with served.opened() as client:
        await client.connection.send(text)
        assert await client.closed() == code


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "connection_init"}, 4429),
        ({"type": "subscribe", "payload": {"query": ME}}, 4400),
        ({"type": "subscribe", "id": "", "payload": {"query": ME}}, 4400),
        ({"type": "subscribe", "id": "a" * 129, "payload": {"query": ME}}, 4400),
    ],
)
async def test_a_message_out_of_place_closes(served: Served, message: Json, code: int) -> None:
    async with served.signed_in() as client:
        await client.send(**message)
        assert await client.closed() == code


async def test_bytes_are_no_message(served: Served) -> None:
    async with served.signed_in() as client:
        await client.connection.send(b'{"type": "ping"}')
        assert await client.closed() == 4400


async def test_a_message_longer_than_an_operation_needs_is_not_read(served: Served) -> None:
    async with served.signed_in() as client:
        await client.subscribe("a", "#" * MAX_BODY_BYTES)
        assert await client.closed() == 1009


async def test_another_protocol_is_not_spoken(served: Served) -> None:
    for protocol in (None, "graphql-ws"):
        async with served.opened(protocol) as client:
            assert await client.closed() == 4406


async def test_silence_at_the_beginning_ends(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "INIT_SECONDS", 0.05)
    async with served.opened() as client:
        await client.send(type="ping")
        assert await client.receive() == {"type": "pong"}
        assert await client.closed() == 4408


async def test_a_database_that_is_away_asks_to_come_back(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_arguments: object) -> None:
        raise Unavailable("the database does not answer; try again in a moment")

    monkeypatch.setattr(socket, "authenticate", away)
    async with served.opened() as client:
        await client.send(type="connection_init", payload={"token": served.manager.admin.token})
        assert await client.closed() == 1013


async def test_an_id_in_use_closes(served: Served) -> None:
    task = await a_new_task(served.manager)
    async with served.signed_in() as client:
        await client.subscribe("a", WATCH, task=str(task.id))
        await client.next("a")
        await client.subscribe("a", ME)
        assert await client.closed() == 4409


async def test_a_connection_runs_a_bounded_number_of_operations(served: Served) -> None:
    task = await a_new_task(served.manager)
    async with served.signed_in() as client:
        for number in range(socket.MAX_OPERATIONS):
            await client.subscribe(str(number), WATCH, task=str(task.id))
        await client.subscribe("more", ME)
        assert (await client.error("more"))["extensions"] == {"code": "BAD_REQUEST"}
        for number in range(socket.MAX_OPERATIONS):
            await client.next(str(number))
        await client.send(type="complete", id="0")
        await client.subscribe("more", ME)
        assert await client.next("more") == ADMIN


async def test_queries_and_mutations_are_answered_and_completed(served: Served) -> None:
    make = 'mutation { createVfolder(input: {name: "made"}) { vfolder { name permission } } }'
    async with served.signed_in() as client:
        await client.subscribe("a", make)
        assert await client.next("a") == {
            "createVfolder": {"vfolder": {"name": "made", "permission": "RW_DELETE"}}
        }
        assert await client.message("a") == {"id": "a", "type": "complete"}
        await client.subscribe("a", ME)
        assert await client.next("a") == ADMIN


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (None, "BAD_REQUEST"),
        ({}, "BAD_REQUEST"),
        ({"query": 5}, "BAD_REQUEST"),
        ({"query": ME, "variables": "x"}, "BAD_REQUEST"),
        ({"query": "{ me {"}, "GRAPHQL_PARSE_FAILED"),
        ({"query": "{ nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": "subscription { nothing }"}, "GRAPHQL_VALIDATION_FAILED"),
        ({"query": WATCH}, "BAD_REQUEST"),
        ({"query": ME, "operationName": "Nothing"}, "BAD_REQUEST"),
        ({"query": "{ " + "me { id } " * 3000 + "}"}, "GRAPHQL_PARSE_FAILED"),
    ],
)
async def test_an_operation_that_is_none_is_an_error_of_its_own(
    served: Served, payload: Json | None, code: str
) -> None:
    async with served.signed_in() as client:
        await client.send(type="subscribe", id="a", payload=payload)
        assert (await client.error("a"))["extensions"]["code"] == code
        await client.subscribe("a", ME)
        assert await client.next("a") == ADMIN


async def test_a_fault_of_the_inside_shows_the_request_id_alone(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken(*_arguments: object, **_named: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(socket.schema, "stream", broken)
    async with served.signed_in() as client:
        await client.subscribe("a", ME)
        error = await client.error("a")
    assert error["extensions"] == {"code": "INTERNAL"}
    assert error["message"].startswith("internal error, request id ")
    assert error["message"].rpartition(" ")[2] in capsys.readouterr().out


async def test_a_subscription_is_not_answered_over_http(manager: Manager) -> None:
    error = await manager.refusal(WATCH, {"task": "x"})
    assert error["extensions"]["code"] == "BAD_REQUEST"
    assert "WebSocket" in error["message"]
