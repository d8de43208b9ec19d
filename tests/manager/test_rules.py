"""The whole table of rules, against an oracle of plain Python that knows the facts alone.

{roles} x {owners, projects of both types} x {invitations in every state} x {statuses} x {host permissions} x {paths}.
"""

import itertools
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert

from manager.access import authorize_import, visible_vfolders, writable_vfolder
from manager.auth import Caller
from manager.models import (
    HostPermission,
    ImportTask,
    Project,
    ProjectMember,
    VFolder,
    VFolderGrant,
    VFolderInvitation,
)
from proxy_client.errors import StowageError
from tests.manager.stand_in import SECRET
from tests.manager.world import World

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = ("USER", "ADMIN")
OWNERS = ("caller", "somebody", "GENERAL member", "GENERAL", "MODEL_STORE member", "MODEL_STORE")
INVITATIONS = (
    None,
    *itertools.product(
        ("PENDING", "ACCEPTED", "REJECTED", "REVOKED", "LEFT"), ("READ_ONLY", "READ_WRITE", "RW_DELETE")
    ),
)
STATUSES = (
    *("READY", "MOUNTED", "PERFORMING", "CLONING", "ERROR"),
    *("DELETE_PENDING", "DELETE_ONGOING", "DELETE_ERROR", "DELETE_COMPLETE"),
)
# Who may upload on a host of that name; the caller is a member of the projects whose folders say so.
HOSTS = ("everybody", "caller", "project", "somebody", "foreign", "nobody", "other-permission")


@dataclass(frozen=True)
class Facts:
    role: str
    owner: str
    invitation: tuple[str, str] | None
    status: str
    host: str
    unmanaged: bool


# The oracle.


def permission(facts: Facts) -> str | None:
    if facts.status == "DELETE_COMPLETE":
        return None
    if facts.owner == "caller":
        return "RW_DELETE"
    if facts.invitation is not None and facts.invitation[0] == "ACCEPTED":
        return facts.invitation[1]
    if facts.owner.endswith("member"):
        return "READ_WRITE"
    if facts.owner == "MODEL_STORE":
        return "READ_WRITE" if facts.role == "ADMIN" else "READ_ONLY"
    return "READ_ONLY" if facts.role == "ADMIN" else None


def refusal(facts: Facts) -> str | None:
    may = permission(facts)
    if may is None:
        return "NOT_FOUND"
    if may == "READ_ONLY" or facts.unmanaged or facts.host not in {"everybody", "caller", "project"}:
        return "FORBIDDEN"
    if facts.status not in {"READY", "MOUNTED"}:
        return "CONFLICT"
    return None


# The rows.


async def populated(world: World, caller: Caller) -> dict[UUID, Facts]:
    cases = [
        Facts(caller.role.value, *facts)
        for facts in itertools.product(OWNERS, INVITATIONS, STATUSES, HOSTS, (False, True))
    ]
    folders = {uuid4(): facts for facts in cases}
    projects = {owner: uuid4() for owner in OWNERS if owner.isupper() or owner.endswith("member")}
    somebody = world.user_b
    permitted: dict[str, dict[str, Any]] = {
        "everybody": {},
        "caller": {"user_id": caller.user_id},
        "project": {"project_id": projects["GENERAL member"]},
        "somebody": {"user_id": somebody.user_id},
        "foreign": {"project_id": projects["MODEL_STORE"]},
        "other-permission": {"permissions": ["create-vfolder", "download-file", "delete-vfolder"]},
    }
    tables: dict[type[Any], list[dict[str, Any]]] = {
        Project: [
            {"id": key, "name": owner, "type": owner.split()[0], "created_at": NOW}
            for owner, key in projects.items()
        ],
        ProjectMember: [
            {"project_id": key, "user_id": caller.user_id}
            for owner, key in projects.items()
            if owner.endswith("member")
        ],
        HostPermission: [
            {"id": uuid4(), "host": f"near:{host}", "user_id": None, "project_id": None}
            | {"permissions": ["upload-file"]}
            | whose
            for host, whose in permitted.items()
        ],
        VFolder: [
            {
                "id": key,
                "name": key.hex,
                "host": f"near:{facts.host}",
                "usage_mode": "MODEL",
                "ownership_type": "GROUP" if facts.owner in projects else "USER",
                "user_id": {"caller": caller.user_id, "somebody": somebody.user_id}.get(facts.owner),
                "project_id": projects.get(facts.owner),
                "status": facts.status,
                "unmanaged_path": "/elsewhere" if facts.unmanaged else None,
                "created_at": NOW,
            }
            for key, facts in folders.items()
        ],
        VFolderInvitation: [
            {
                "id": uuid4(),
                "vfolder_id": key,
                "email": caller.email,
                "permission": facts.invitation[1],
                "inviter_id": somebody.user_id,
                "state": facts.invitation[0],
                "created_at": NOW,
            }
            for key, facts in folders.items()
            if facts.invitation
        ],
        VFolderGrant: [
            {"vfolder_id": key, "user_id": caller.user_id, "permission": facts.invitation[1]}
            for key, facts in folders.items()
            if facts.invitation and facts.invitation[0] == "ACCEPTED"
        ],
    }
    async with world.database.begin() as session:
        for table, rows in tables.items():
            await session.execute(insert(table.__table__), rows)
    return folders


@pytest.mark.parametrize("role", ROLES)
async def test_the_table_of_rules_is_the_oracles(world: World, role: str) -> None:
    caller = world.admin if role == "ADMIN" else world.user_a
    folders = await populated(world, caller)
    # What may be seen, and with which permission: all cases.
    async with world.database.read() as session:
        seen = {row[0].id: row[1].value for row in await session.execute(visible_vfolders(caller))}
    folders_seen = {facts: seen.get(key) for key, facts in folders.items()}
    assert folders_seen == {facts: permission(facts) for facts in folders.values()}
    # What may be written at a request, and when a proxy asks: as many of each answer.
    chosen = []
    for answer in ("NOT_FOUND", "FORBIDDEN", "CONFLICT", None):
        alike = sorted(
            (key for key, facts in folders.items() if refusal(facts) == answer), key=lambda k: str(folders[k])
        )
        chosen += random.Random(7).sample(alike, 60)  # noqa: S311 -- a choice of cases, the same at every run
    found = {folders[key]: await refused(world, caller, key) for key in chosen}
    assert found == {facts: refusal(facts) for facts in found}
    asked = {folders[key]: await authorized(world, caller, key) for key in chosen[::3]}
    assert asked == {facts: refusal(facts) is None for facts in asked}
    await world.execute("UPDATE users SET status = 'INACTIVE'")
    asked = {folders[key]: await authorized(world, caller, key) for key in chosen[-10:]}
    assert not any(asked.values())


async def refused(world: World, caller: Caller, folder: UUID) -> str | None:
    async with world.database.read() as session:
        try:
            await writable_vfolder(session, caller, folder)
        except StowageError as exc:
            return exc.code
    return None


async def authorized(world: World, caller: Caller, folder: UUID) -> bool:
    task = uuid4()
    async with world.database.begin() as session:
        values = {
            "id": task,
            "request_id": "r",
            "requested_by_id": caller.user_id,
            "artifact_revision_id": world.revision,
            "proxy": "near",
            "vfolder_id": folder,
            "path": "x",
            "destination": task.hex,
            "on_conflict": "FAIL",
            "order": {},
        }
        await session.execute(insert(ImportTask).values(**values))
    answer = await authorize_import(world.database, world.settings, task, f"Bearer near-{SECRET}")
    assert answer.allowed or answer.reason
    return answer.allowed
