import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy_client.errors import BadRequest
from stowage.commands.tokens import end_of
from tests.cli.stand_in import Outcome, StandIn, connection
from tests.cli.test_artifacts import artifact

Run = Callable[..., Outcome]

USER_ID = "11111111-1111-4111-8111-111111111111"
ADMIN_ID = "22222222-2222-4222-8222-222222222222"
TOKEN_ID = "8c1d4a52-0d34-4d8b-a5a0-6c0f3a7be9d2"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


def user(email: str = "ann@example.org", identity: str = USER_ID, **changed: Any) -> dict[str, Any]:
    return {
        "id": base64.b64encode(f"User:{identity}".encode()).decode(),
        "email": email,
        "role": "USER",
        "status": "ACTIVE",
        "createdAt": NOW.isoformat(),
    } | changed


def token(**changed: Any) -> dict[str, Any]:
    return {
        "id": base64.b64encode(f"Token:{TOKEN_ID}".encode()).decode(),
        "name": "laptop",
        "createdAt": NOW.isoformat(),
        "expiresAt": None,
        "revokedAt": None,
        "user": user(),
    } | changed


@pytest.fixture
def office(manager: StandIn) -> StandIn:
    """A manager asked by its administrator."""
    manager.answers |= {
        "me": user("admin@localhost", ADMIN_ID, role="ADMIN"),
        "users": connection([user("joann@example.org", ADMIN_ID), user()]),
        "tokens": connection([token(expiresAt="2027-01-31T00:00:00+00:00")]),
        "createUser": {"user": user()},
        "createToken": {"id": TOKEN_ID, "token": "stw_new"},
        "revokeToken": {"id": TOKEN_ID},
        "setUserStatus": {"user": user(status="INACTIVE")},
    }
    return manager


# Users.


@pytest.mark.parametrize(("options", "role"), [([], "USER"), (["--admin"], "ADMIN")])
def test_user_create_makes_a_user_or_an_administrator(
    office: StandIn, stowage: Run, options: list[str], role: str
) -> None:
    outcome = stowage("user", "create", "ann@example.org", *options)
    assert outcome.status == 0
    assert office.arguments("createUser") == [{"input": {"email": "ann@example.org", "role": role}}]
    assert f"id      {USER_ID}" in outcome.out.splitlines()
    assert "stowage token create NAME --user ann@example.org" in outcome.err


def test_user_create_writes_json(office: StandIn, stowage: Run) -> None:
    outcome = stowage("user", "create", "ann@example.org", "--json")
    assert (outcome.json["id"], outcome.err) == (USER_ID, "")


def test_user_list_is_a_table_of_every_page(office: StandIn, stowage: Run) -> None:
    first = connection([user()])
    first["pageInfo"] |= {"hasNextPage": True, "endCursor": "here"}
    second = connection([user("ops@example.org", role="ADMIN", status="INACTIVE")])

    def pages(after: str | None = None, **_arguments: object) -> dict[str, Any]:
        return second if after else first

    office.answers["users"] = pages
    lines = [line.split() for line in stowage("user", "list", "--search", "example").out.splitlines()]
    assert lines[0] == ["ADDRESS", "ID", "ROLE", "STATUS", "CREATED"]
    assert lines[1][:4] == ["ann@example.org", USER_ID, "user", "active"]
    assert lines[2][:4] == ["ops@example.org", USER_ID, "admin", "inactive"]
    assert {asked["search"] for asked in office.arguments("users")} == {"example"}


def test_user_list_says_who_may_when_the_caller_may_not(office: StandIn, stowage: Run) -> None:
    office.refuse("users", "FORBIDDEN", "only administrators may do this; ask one")
    outcome = stowage("user", "list", "--json")
    assert (outcome.status, json.loads(outcome.out)["error"]["code"]) == (3, "FORBIDDEN")
    assert "ask one" in outcome.err


@pytest.mark.parametrize(("command", "status"), [("revoke", "INACTIVE"), ("restore", "ACTIVE")])
@pytest.mark.parametrize("who", ["ann@example.org", "Ann@Example.org", USER_ID])
def test_a_user_is_named_by_address_or_id(
    office: StandIn, stowage: Run, command: str, status: str, who: str
) -> None:
    assert stowage("user", command, who, "--json").json["status"] == "INACTIVE"
    assert office.arguments("setUserStatus") == [{"input": {"userId": USER_ID, "status": status}}]


def test_a_part_of_an_address_is_no_user(office: StandIn, stowage: Run) -> None:
    outcome = stowage("user", "revoke", "ann@example")
    assert outcome.status == 2
    assert "`stowage user list` shows all" in outcome.err
    assert office.arguments("setUserStatus") == []


# Tokens.


def test_token_create_writes_the_token_alone_on_stdout(office: StandIn, stowage: Run) -> None:
    outcome = stowage("token", "create", "laptop")
    assert (outcome.status, outcome.out) == (0, "stw_new\n")
    assert f"stowage token revoke {TOKEN_ID}" in outcome.err
    assert "stw_new" not in outcome.err
    assert office.arguments("createToken") == [
        {"input": {"name": "laptop", "userId": None, "expiresAt": None}}
    ]


def test_token_create_writes_json(office: StandIn, stowage: Run) -> None:
    outcome = stowage("token", "create", "ci", "--expires", "2027-01-31T00:00:00Z", "--json")
    assert outcome.json == {
        "id": TOKEN_ID,
        "token": "stw_new",
        "name": "ci",
        "expiresAt": "2027-01-31T00:00:00+00:00",
    }
    assert outcome.err == ""


def test_token_create_for_somebody_else(office: StandIn, stowage: Run) -> None:
    stowage("token", "create", "laptop", "--user", "ann@example.org")
    [asked] = office.arguments("createToken")
    assert asked["input"]["userId"] == USER_ID


def test_naming_oneself_needs_no_administrator(office: StandIn, stowage: Run) -> None:
    office.answers["me"] = user()
    office.refuse("users", "FORBIDDEN", "only administrators may do this; ask one")
    assert stowage("token", "create", "laptop", "--user", "ann@example.org").status == 0
    [asked] = office.arguments("createToken")
    assert asked["input"]["userId"] == USER_ID


def test_token_list_shows_what_is_accepted_or_all(office: StandIn, stowage: Run) -> None:
    lines = stowage("token", "list").out.splitlines()
    assert lines[0].split() == ["NAME", "ID", "USER", "CREATED", "ENDS", "REVOKED"]
    assert lines[1].split()[:3] == ["laptop", TOKEN_ID, "ann@example.org"]
    assert "2027-01-31 00:00:00" in lines[1]
    assert stowage("token", "list", "--all", "--user", "ann@example.org", "--json").json[0]["id"] == TOKEN_ID
    asked = [(each["userId"], each["activeOnly"]) for each in office.arguments("tokens")]
    assert asked == [(None, True), (USER_ID, False)]


def test_token_revoke_takes_the_id(office: StandIn, stowage: Run) -> None:
    assert stowage("token", "revoke", TOKEN_ID, "--json").json == {"id": TOKEN_ID, "revoked": True}
    outcome = stowage("token", "revoke", TOKEN_ID)
    assert (outcome.status, outcome.out) == (0, "")
    assert f"{TOKEN_ID} is refused from now on" in outcome.err


def test_the_token_itself_is_not_sent_where_its_id_belongs(office: StandIn, stowage: Run) -> None:
    outcome = stowage("token", "revoke", "stw_secret")
    assert outcome.status == 2
    assert "`stowage token list` shows" in outcome.err
    assert "stw_secret" not in outcome.err
    assert office.asked == []


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("12h", NOW + timedelta(hours=12)),
        ("30d", NOW + timedelta(days=30)),
        ("8w", NOW + timedelta(weeks=8)),
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T10:00:00+02:00", datetime(2027, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_an_end_is_a_span_or_a_date(text: str, end: datetime) -> None:
    assert end_of(text, NOW) == end


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5d", "30 d", "tomorrow", "99999d", "٣d"])
def test_what_is_no_end_is_refused_before_anything_is_made(office: StandIn, stowage: Run, text: str) -> None:
    with pytest.raises(BadRequest):
        end_of(text, NOW)
    outcome = stowage("token", "create", "x", f"--expires={text}")
    assert outcome.status == 2
    assert "30d" in outcome.err
    assert office.asked == []


# Waivers and approvals.

WAIVER = {
    "id": "w1",
    "artifact": {"id": "a1", "name": "sample/tiny-bert"},
    "verifier": "structure",
    "rule": "zip-hidden",
    "file": "a.zip",
    "reason": "signed",
    "createdAt": NOW.isoformat(),
    "expiresAt": "2027-01-31T00:00:00+00:00",
    "revokedAt": None,
    "createdBy": {"id": USER_ID, "email": "admin@localhost"},
}


def test_waivers_are_listed_made_and_revoked(manager: StandIn, stowage: Run) -> None:
    manager.answers |= {
        "artifacts": connection([artifact()]),
        "artifactRevisions": connection([]),
        "verificationWaivers": connection([WAIVER]),
        "createVerificationWaiver": {"waiver": WAIVER},
        "revokeVerificationWaiver": {"waiver": WAIVER},
    }

    assert "structure: zip-hidden in a.zip" in stowage("waiver", "list").out
    made = stowage(
        *("waiver", "create", "sample/tiny-bert", "structure", "--rule", "zip-hidden"),
        *("--until", "2027-01-31", "--reason", "signed", "--json"),
    )
    assert json.loads(made.out) == WAIVER
    assert "stands in the way again" in stowage("waiver", "revoke", "w1").err
    assert stowage("waiver", "create", "sample/tiny-bert", "structure", "--until", "1d").status == 2
