"""Waivers: recorded acts of administrators, with a reason and an end, which storage proxies hear of."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select, update

from manager.access import authorize_import
from manager.models import AuditEntry, ImportTaskStatus, VerificationWaiver
from proxy_client import wire
from tests.graphql.served import SECRET, Manager
from tests.graphql.test_lifecycle import a_task

pytestmark = pytest.mark.anyio
CREATE = """mutation($input: CreateVerificationWaiverInput!) { createVerificationWaiver(input: $input) { waiver {
  id artifact { id name } verifier rule file reason expiresAt revokedAt createdBy { email } revokedBy { email } } } }"""
REVOKE = """mutation($id: ID!) { revokeVerificationWaiver(input: {id: $id}) { waiver {
  id revokedAt revokedBy { email } } } }"""
LIST = """query($artifact: ID, $inForce: Boolean) {
  verificationWaivers(artifactId: $artifact, inForce: $inForce) { count edges { node { id } } } }"""


def later(**span: int) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat()


def wanted(artifact_id: UUID, **values: Any) -> dict[str, Any]:
    asked = {
        "artifactId": str(artifact_id),
        "verifier": "structure",
        "reason": "seen",
        "expiresAt": later(days=1),
    }
    return {"input": asked | values}


async def created(manager: Manager, artifact_id: UUID, **values: Any) -> dict[str, Any]:
    data = await manager.ask(CREATE, wanted(artifact_id, **values))
    waiver = data["createVerificationWaiver"]["waiver"]
    assert isinstance(waiver, dict)
    return waiver


async def told(manager: Manager, task: Any) -> list[wire.Waiver]:
    """Return the waivers that the task's proxy hears of."""
    answer = await authorize_import(manager.database, manager.settings, task.id, f"Bearer {SECRET}")
    assert answer.allowed
    return answer.waivers


async def listed(manager: Manager, **arguments: Any) -> list[str]:
    data = (await manager.ask(LIST, arguments))["verificationWaivers"]
    assert data["count"] == len(data["edges"])
    return [edge["node"]["id"] for edge in data["edges"]]


async def test_a_waiver_is_kept_with_who_and_why_and_told_to_the_proxy(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact())
    other = await manager.revision(await manager.artifact("org/other"))
    task = await a_task(manager, revision, status=ImportTaskStatus.RUNNING)

    made = await created(manager, revision.artifact_id, rule="zip-hidden", file="a.zip")

    assert made["artifact"]["id"]
    assert (made["rule"], made["file"], made["reason"]) == ("zip-hidden", "a.zip", "seen")
    assert made["createdBy"]["email"] == manager.admin.row.email
    assert made["revokedBy"] is None
    (heard,) = await told(manager, task)
    assert (heard.verifier, heard.rule, heard.file) == ("structure", "zip-hidden", "a.zip")
    assert await listed(manager, artifact=str(revision.artifact_id)) == [made["id"]]
    assert await listed(manager, artifact=str(other.artifact_id)) == []
    async with manager.database.read() as session:
        (entry,) = await session.scalars(select(AuditEntry).where(AuditEntry.action == "waiver.create"))
    assert (entry.subject, entry.actor_id) == (str(heard.id), manager.admin.id)
    assert (entry.details or {})["reason"] == "seen"


async def test_a_waiver_ends_by_itself_or_when_it_is_revoked(manager: Manager) -> None:
    revision = await manager.revision(await manager.artifact())
    task = await a_task(manager, revision, status=ImportTaskStatus.RUNNING)
    first = await created(manager, revision.artifact_id)
    second = await created(manager, revision.artifact_id)
    assert len(await told(manager, task)) == 2

    for _ in range(2):
        revoked = (await manager.ask(REVOKE, {"id": first["id"]}))["revokeVerificationWaiver"]["waiver"]
        assert revoked["revokedBy"]["email"] == manager.admin.row.email
    assert len(await told(manager, task)) == 1
    async with manager.database.begin() as session:
        await session.execute(
            update(VerificationWaiver).values(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        )

    assert await told(manager, task) == []
    assert await listed(manager, inForce=True) == []
    assert sorted(await listed(manager, inForce=False)) == sorted([first["id"], second["id"]])
    async with manager.database.read() as session:
        found = await session.scalars(select(AuditEntry).where(AuditEntry.action == "waiver.revoke"))
        assert len(found.all()) == 1


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"verifier": "integrity"}, "input.verifier"),
        ({"verifier": "no such\nname"}, "input.verifier"),
        ({"rule": ""}, "input.rule"),
        ({"file": "x" * 5001}, "input.file"),
        ({"reason": "  "}, "input.reason"),
        ({"reason": "x" * 1001}, "input.reason"),
        ({"expiresAt": later(seconds=-1)}, "input.expiresAt"),
        ({"expiresAt": later(days=400)}, "input.expiresAt"),
        ({"artifactId": str(uuid4())}, "input.artifactId"),
    ],
)
async def test_a_waiver_without_its_reason_or_end_is_refused(
    manager: Manager, values: dict[str, Any], field: str
) -> None:
    artifact = await manager.artifact()
    refusal = await manager.refusal(CREATE, wanted(artifact.id, **values))
    assert refusal["extensions"]["field"] == field
    assert await listed(manager) == []


async def test_only_administrators_waive(manager: Manager) -> None:
    artifact = await manager.artifact()
    made = await created(manager, artifact.id)
    person = await manager.person()
    for query, variables in ((CREATE, wanted(artifact.id)), (REVOKE, {"id": made["id"]}), (LIST, {})):
        refusal = await manager.refusal(query, variables, by=person)
        assert refusal["extensions"]["code"] == "FORBIDDEN"
    assert await listed(manager) == [made["id"]]
