"""Sharing, projects, hosts, quotas, roles and rotated tokens on the command line."""

import base64
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy_client.errors import BadRequest
from stowage.commands.quotas import size_of
from tests.cli.stand_in import FOLDER_ID, Outcome, StandIn, connection
from tests.cli.test_administration import TOKEN_ID, USER_ID, token, user

Run = Callable[..., Outcome]

INVITATION_ID = "5b0e8d1c-0d34-4d8b-a5a0-6c0f3a7be9d2"
PROJECT_ID = "6c0e8d1c-0d34-4d8b-a5a0-6c0f3a7be9d2"
NOW = "2026-11-22T12:00:00+00:00"


def named(kind: str, identity: str) -> str:
    return base64.b64encode(f"{kind}:{identity}".encode()).decode()


def invitation(**changed: Any) -> dict[str, Any]:
    return {
        "id": named("VFolderInvitation", INVITATION_ID),
        "email": "ann@example.org",
        "permission": "READ_WRITE",
        "state": "PENDING",
        "vfolderName": "models",
        "createdAt": NOW,
        "answeredAt": None,
        "inviter": user("bob@example.org"),
    } | changed


def project() -> dict[str, Any]:
    identity = named("Project", PROJECT_ID)
    return {"id": identity, "name": "research", "type": "MODEL_STORE", "createdAt": NOW}


def quota(**changed: Any) -> dict[str, Any]:
    return {
        "id": "q",
        "host": "local:volume1",
        "quotaScopeId": f"user:{USER_ID}",
        "storageName": None,
        "user": user(),
        "project": None,
        "limitBytes": str(1 << 30),
        "usedBytes": str(1 << 29),
        "reservedBytes": "1024",
        "availableBytes": str((1 << 29) - 1024),
        "enforced": True,
        "reportedAt": NOW,
    } | changed


def host_permission(**changed: Any) -> dict[str, Any]:
    permissions = ["CREATE_VFOLDER", "UPLOAD_FILE"]
    return {"id": "h", "host": "local:volume2", "permissions": permissions, "user": None} | {
        "project": None,
        **changed,
    }


@pytest.fixture
def office(manager: StandIn) -> StandIn:
    manager.answers |= {
        "me": user("admin@localhost", role="ADMIN"),
        "users": connection([user()]),
        "vfolderShares": connection([]),
        "vfolderInvitations": connection([invitation()]),
        "inviteToVfolder": {"invitation": invitation()},
        "acceptVfolderInvitation": {"invitation": invitation(state="ACCEPTED")},
        "rejectVfolderInvitation": {"invitation": invitation(state="REJECTED")},
        "revokeVfolderShare": {"vfolder": {"id": FOLDER_ID, "name": "models"}},
        "leaveVfolder": {"id": FOLDER_ID},
        "projects": connection([project()]),
        "projectMembers": connection([user()]),
        "createProject": {"project": project()},
        "deleteProject": {"id": PROJECT_ID},
        "addProjectMember": {"project": project()},
        "removeProjectMember": {"project": project()},
        "hostPermissions": connection([host_permission(), host_permission(project=project())]),
        "grantHostPermissions": {"hostPermission": host_permission(user=user())},
        "revokeHostPermissions": {"hostPermission": host_permission(permissions=[])},
        "quota": quota(),
        "quotas": connection([quota(), quota(host=None, user=None, storageName="archive", limitBytes=None)]),
        "setQuota": {"quota": quota()},
        "setUserRole": {"user": user(role="ADMIN") | {"permissions": []}},
        "grantUserPermission": {"user": user() | {"permissions": ["ARTIFACT_IMPORT"]}},
        "revokeUserPermission": {"user": user() | {"permissions": []}},
        "rotateToken": {"id": TOKEN_ID, "token": "stw_newer"},
        "setTokenExpiry": {"token": token(expiresAt=NOW)},
    }
    return manager


# Sharing.


def test_folder_share_invites_and_says_how_it_is_accepted(office: StandIn, stowage: Run) -> None:
    outcome = stowage("folder", "share", "models", "Ann@example.org", "--permission", "rw")
    assert outcome.status == 0
    assert office.arguments("inviteToVfolder") == [
        {"input": {"vfolderId": FOLDER_ID, "email": "ann@example.org", "permission": "READ_WRITE"}}
    ]
    assert f"stowage folder accept {INVITATION_ID}" in outcome.err


def test_folder_share_with_somebody_who_has_it_changes_the_permission(office: StandIn, stowage: Run) -> None:
    share = {"permission": "READ_ONLY", "user": user()}
    office.answers |= {"vfolderShares": connection([share]), "setVfolderPermission": {"share": share}}
    assert stowage("folder", "share", "models", "ann@example.org", "--permission", "wd").status == 0
    assert office.arguments("setVfolderPermission") == [
        {"input": {"vfolderId": FOLDER_ID, "userId": USER_ID, "permission": "RW_DELETE"}}
    ]
    assert office.arguments("inviteToVfolder") == []


def test_folder_shares_lists_guests_and_those_who_were_asked(office: StandIn, stowage: Run) -> None:
    office.answers["vfolderShares"] = connection([{"permission": "READ_ONLY", "user": user("x@y")}])
    lines = [line.split() for line in stowage("folder", "shares", "models").out.splitlines()]
    assert lines[1:] == [["x@y", "ro", "shared"], ["ann@example.org", "rw", "invited"]]


@pytest.mark.parametrize("answer", ["accept", "reject"])
@pytest.mark.parametrize("name", ["models", INVITATION_ID])
def test_an_invitation_is_answered_by_its_id_or_the_folders_name(
    office: StandIn, stowage: Run, answer: str, name: str
) -> None:
    outcome = stowage("folder", answer, name, "--json")
    assert outcome.json["state"] == f"{answer.upper()}ED"
    assert office.arguments(f"{answer}VfolderInvitation") == [{"input": {"id": INVITATION_ID}}]
    assert {each["received"] for each in office.arguments("vfolderInvitations")} == {True}


def test_an_invitation_of_two_of_a_name_is_told_by_its_id(office: StandIn, stowage: Run) -> None:
    other = invitation(id=named("VFolderInvitation", PROJECT_ID))
    office.answers["vfolderInvitations"] = connection([invitation(), other])
    outcome = stowage("folder", "accept", "models")
    assert outcome.status == 2
    assert INVITATION_ID in outcome.err
    assert stowage("folder", "accept", "other").status == 2
    assert office.arguments("acceptVfolderInvitation") == []


def test_folder_invitations_are_those_that_wait_or_all(office: StandIn, stowage: Run) -> None:
    lines = stowage("folder", "invitations").out.splitlines()
    assert lines[1].split()[:4] == ["models", INVITATION_ID, "bob@example.org", "rw"]
    stowage("folder", "invitations", "--all")
    assert [each["state"] for each in office.arguments("vfolderInvitations")] == [["PENDING"], None]


def test_folder_revoke_and_leave(office: StandIn, stowage: Run) -> None:
    assert stowage("folder", "revoke", "models", "ann@example.org").status == 0
    assert stowage("folder", "leave", "models", "--json").json["left"] is True
    both = [
        office.arguments(name)[0]["input"]["vfolderId"] for name in ("revokeVfolderShare", "leaveVfolder")
    ]
    assert both == [FOLDER_ID, FOLDER_ID]


# Projects.


def test_projects_are_made_listed_and_deleted_by_name(office: StandIn, stowage: Run) -> None:
    assert "type     model-store" in stowage("project", "create", "research", "--model-store").out
    assert office.arguments("createProject") == [{"input": {"name": "research", "type": "MODEL_STORE"}}]
    assert stowage("project", "list").out.splitlines()[1].split()[:2] == ["research", PROJECT_ID]
    assert stowage("project", "delete", "research").status == 0
    assert office.arguments("deleteProject") == [{"input": {"projectId": PROJECT_ID}}]
    assert stowage("project", "delete", "other").status == 2


@pytest.mark.parametrize(
    ("command", "field"), [("add", "addProjectMember"), ("remove", "removeProjectMember")]
)
def test_members_come_and_go(office: StandIn, stowage: Run, command: str, field: str) -> None:
    assert stowage("project", command, "research", "ann@example.org").status == 0
    assert office.arguments(field) == [{"input": {"projectId": PROJECT_ID, "userId": USER_ID}}]
    assert stowage("project", "members", "research").out.splitlines()[1].split()[0] == "ann@example.org"


def test_a_folder_of_a_project(office: StandIn, stowage: Run) -> None:
    office.answers["createVfolder"] = {"vfolder": office.answers["vfolders"]["edges"][0]["node"]}
    assert stowage("folder", "create", "models", "--project", "research").status == 0
    assert office.arguments("createVfolder")[0]["input"]["projectId"] == PROJECT_ID


# Hosts.


def test_hosts_are_opened_and_closed(office: StandIn, stowage: Run) -> None:
    assert stowage("host", "grant", "local:volume2", "all", "--user", "ann@example.org").status == 0
    [granted] = office.arguments("grantHostPermissions")
    assert granted["input"]["userId"] == USER_ID
    assert len(granted["input"]["permissions"]) == 4
    outcome = stowage("host", "revoke", "local:volume2", "upload-file", "--project", "research")
    assert "permissions  nothing" in outcome.out
    [revoked] = office.arguments("revokeHostPermissions")
    assert (revoked["input"]["permissions"], revoked["input"]["projectId"]) == (["UPLOAD_FILE"], PROJECT_ID)
    assert stowage("host", "grant", "local:volume2", "everything").status == 2
    lines = stowage("host", "list").out.splitlines()
    assert "everybody" in lines[1]
    assert "members of research" in lines[2]


# Quotas.


def test_quota_show_and_list(office: StandIn, stowage: Run) -> None:
    lines = stowage("quota", "show").out.splitlines()
    assert [line.split()[1:] for line in lines[2:5]] == [["1.0", "GiB"], ["512.0", "MiB"], ["1.0", "KiB"]]
    assert office.arguments("quota") == [
        {"userId": None, "projectId": None, "storageName": None, "host": None}
    ]
    assert stowage("quota", "show", "--project", "research", "--json").json["usedBytes"] == 1 << 29
    assert office.arguments("quota")[1]["projectId"] == PROJECT_ID
    rows = stowage("quota", "list").out.splitlines()
    assert rows[1].split()[:2] == ["ann@example.org", "local:volume1"]
    assert rows[2].startswith("archive")


def test_quota_set_names_whose_and_how_much(office: StandIn, stowage: Run) -> None:
    assert stowage("quota", "set", "500G", "--user", "ann@example.org").status == 0
    assert stowage("quota", "set", "none", "--storage", "archive", "--json").status == 0
    asked = [each["input"] for each in office.arguments("setQuota")]
    assert [(each["limitBytes"], each["userId"], each["storageName"]) for each in asked] == [
        (str(500 << 30), USER_ID, None),
        (None, None, "archive"),
    ]
    outcome = stowage("quota", "set", "5G")
    assert outcome.status == 2
    assert "--user" in outcome.err


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1024", 1024), ("500G", 500 << 30), ("2.5T", 5 << 39), ("1gib", 1 << 30), ("None", None)],
)
def test_a_limit_is_bytes_or_binary_units(text: str, size: int | None) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1.5", "G", "1 G", "1X", "٣G", "1.2345G"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        size_of(text)


# Users and tokens.


def test_roles_and_permissions(office: StandIn, stowage: Run) -> None:
    assert stowage("user", "role", "ann@example.org", "admin", "--json").json["role"] == "ADMIN"
    for command, field in (("grant", "grantUserPermission"), ("withdraw", "revokeUserPermission")):
        assert stowage("user", command, "ann@example.org", "artifact:import").status == 0
        assert office.arguments(field) == [{"input": {"userId": USER_ID, "permission": "ARTIFACT_IMPORT"}}]


def test_token_rotate_writes_the_new_token_alone_on_stdout(office: StandIn, stowage: Run) -> None:
    outcome = stowage("token", "rotate", TOKEN_ID, "--keep", "2027-01-31T00:00:00Z")
    assert (outcome.status, outcome.out) == (0, "stw_newer\n")
    assert "is accepted until 2027-01-31 00:00:00" in outcome.err
    [asked] = office.arguments("rotateToken")
    assert asked["input"]["id"] == TOKEN_ID
    assert asked["input"]["expiresAt"] is None
    refused = stowage("token", "rotate", "stw_secret")
    assert refused.status == 2
    assert "stw_secret" not in refused.err


def test_token_expire_takes_an_end_or_never(office: StandIn, stowage: Run) -> None:
    assert "ends 2026-11-22 12:00:00" in stowage("token", "expire", TOKEN_ID, "30d").err
    stowage("token", "expire", TOKEN_ID, "never")
    assert office.arguments("setTokenExpiry")[1]["input"]["expiresAt"] is None
    assert stowage("token", "expire", TOKEN_ID, "tomorrow").status == 2


def test_audit_list_takes_as_many_as_asked_for(office: StandIn, stowage: Run) -> None:
    entry = {"id": "e", "at": NOW, "action": "quota.set", "subject": "s", "details": {"limit": 1}}
    office.answers["auditEntries"] = connection([entry | {"requestId": None, "actor": user()}] * 3)
    assert len(stowage("audit", "list", "--limit", "2", "--json").json) == 2
    line = stowage("audit", "list", "--action", "quota.").out.splitlines()[1]
    assert line.split()[2:5] == ["ann@example.org", "quota.set", "s"]


# The page for administrators.

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def commands_of_the_page() -> list[str]:
    sections = [
        PAGE.read_text().partition(f"\n## {title}\n")[2].partition("\n## ")[0]
        for title in ("Permissions", "Quotas")
    ]
    return re.findall(r"^\$ stowage ([^#\n]*[^#\s])", "".join(sections), re.MULTILINE)


def test_the_commands_that_operations_shows_are_taken(office: StandIn, stowage: Run) -> None:
    office.answers["createVfolder"] = {"vfolder": office.answers["vfolders"]["edges"][0]["node"]}
    office.answers["users"] = connection([user("alice@example.org")])
    assert len(commands_of_the_page()) >= 12
    for command in commands_of_the_page():
        assert stowage(*shlex.split(command)).status == 0, command
