"""What verifiers object to never becomes visible; what they flag waits for an administrator, whatever restarts meanwhile."""

import json
import os
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

from tests.e2e.world import OPEN, Files, Folder, Model, World, wait_until
from tests.faults.hub import Rule
from tests.faults.models import digest_tree
from tests.verifiers.samples_pickles import stack_global

_REPORT = """{ verifiers { name result {
    success infectedCount scannedCount error metadata { entries { key value } } } } }"""
_TASK = f"query ($id: ID!) {{ importTask(id: $id) {{ approvalExpiresAt verificationResult {_REPORT} }} }}"
_REVISION = f"query ($id: ID!) {{ artifactRevision(id: $id) {{ verificationResult {_REPORT} }} }}"
_REVISION_DECISION = """mutation ($id: ID!) {
  %sArtifactRevision(input: {artifactRevisionId: $id}) { artifactRevision { id } } }"""


def infected() -> bytes:
    """A checkpoint as PyTorch writes it; loading it asks for the process's number."""
    content = BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x04" + stack_global("os", "getpid") + b")R.")
        archive.writestr("model/data/0", bytes(64))
        archive.writestr("model/version", b"3\n")
    return content.getvalue()


# Named by no loader of models, and brings code of its own for one.
REMOTE = b'{"auto_map": {"AutoModel": "modeling.Model"}}'
FLAGGED: Files = {"config.json": REMOTE, "weights.bin": 300_000}


def report(world: World, query: str, key: str) -> dict[str, Any]:
    """Return the verifiers' results by name, and each finding as an object."""
    (answer,) = world.stack.graphql(query, {"id": key}).values()
    results = {entry["name"]: entry["result"] for entry in answer["verificationResult"]["verifiers"]}
    for result in results.values():
        facts = {entry["key"]: entry["value"] for entry in result.pop("metadata")["entries"]}
        result["findings"] = [
            json.loads(value) for name, value in facts.items() if name.startswith("finding.")
        ]
    return results


def waiting(world: World, model: Model, folder: Folder | None = None) -> str:
    """Import until the task waits for an approval; nothing is visible and the bytes are staged."""
    task_id = world.begin(model, folder, by=folder.owner if folder else None)
    wait_until(lambda: world.task(task_id)["status"] == "NEEDS_APPROVAL", "nobody is asked")
    assert world.staged(task_id)
    if folder is not None:
        assert folder.everything() == {}
    return task_id


def decide(world: World, verb: str, task_id: str, *, token: str | None = None) -> dict[str, Any]:
    reason = 'reason: "not ours"' if verb == "reject" else ""
    mutation = (
        f"mutation ($id: ID!) {{ {verb}ImportTask(input: {{taskId: $id {reason}}}) {{ task {{ id }} }} }}"
    )
    return world.stack.post(mutation, {"id": task_id}, token=token)


def rejected(world: World, task_id: str) -> dict[str, Any]:
    task = world.finished(task_id)
    assert (task["status"], task["error"]["code"], task["error"]["step"]) == ("FAILED", "REJECTED", "VERIFY")
    assert world.staged(task_id) == []
    return task


def test_an_infected_model_never_appears_in_a_folder(world: World) -> None:
    files: Files = {"config.json": b"{}", "pytorch_model.bin": infected(), "weights.bin": 300_000}
    model, folder = world.model(files), world.folder(world.person())

    task = world.bring(model, folder, by=folder.owner)

    assert (task["status"], task["error"]["code"]) == ("FAILED", "VERIFICATION_BLOCKED")
    assert "os" in task["error"]["message"]
    world.insist_on_nothing_left(task, folder)
    found = report(world, _TASK, task["id"])
    assert not found["structure"]["success"]
    (finding,) = found["structure"]["findings"]
    assert finding | {"message": ""} == {
        "file": "pytorch_model.bin",
        "member": "model/data.pkl",
        "rule": "pickle-global",
        "category": "code",
        "severity": "block",
        "message": "",
        "waiver": None,
    }
    assert found["integrity"] | {"findings": []} == {
        "success": True,
        "infectedCount": 0,
        "scannedCount": 3,
        "error": None,
        "findings": [],
    }

    shown = subprocess.run(
        [sys.executable, "-m", "stowage", "task", "show", task["id"]],
        env={
            **os.environ,
            "STOWAGE_URL": world.stack.url,
            "STOWAGE_TOKEN": world.admin.token,
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "pytorch_model.bin" in shown
    assert "pickle-global" in shown


def test_an_infected_model_never_appears_in_the_artifact_storage(world: World) -> None:
    model = world.model({"pytorch_model.bin": infected()})
    revision = world.scan(model)["id"]

    (task_id,) = world.order([revision])
    task = world.finished(str(task_id))

    assert (task["status"], task["error"]["code"]) == ("FAILED", "VERIFICATION_BLOCKED")
    assert world.revision(revision)["status"] == "FAILED"
    assert report(world, _REVISION, revision)["structure"]["findings"]
    assert world.staged(task["id"]) == []
    assert [
        found for root in world.storages() for found in root.rglob(f"*{model.id.partition('/')[2]}*")
    ] == []


def test_what_is_flagged_waits_for_an_administrator_and_a_worker_that_dies(world: World) -> None:
    owner = world.person()
    model, folder = world.model(FLAGGED), world.folder(owner)
    task_id = waiting(world, model, folder)
    told = report(world, _TASK, task_id)["structure"]
    assert [finding["severity"] for finding in told["findings"]] == ["flag"]
    assert world.stack.graphql(_TASK, {"id": task_id})["importTask"]["approvalExpiresAt"]

    refused = decide(world, "approve", task_id, token=owner.token)
    assert refused["errors"][0]["extensions"]["code"] in {"FORBIDDEN", "NOT_FOUND"}
    old = world.stack.kill("worker")
    wait_until(lambda: world.stack.pids.get("worker", old) != old, "the worker does not come back")
    world.stack.wait_ready()
    assert world.task(task_id)["status"] == "NEEDS_APPROVAL"
    # Whoever was asked need not have the source at hand.
    world.hub.set(Rule(path=model.id, hang_up=True))
    assert not decide(world, "approve", task_id).get("errors")

    assert world.finished(task_id)["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    assert world.staged(task_id) == []
    audited = world.rows("SELECT action FROM audit_log WHERE subject = $1", task_id)
    assert [row["action"] for row in audited] == ["import.approve"]


def test_bytes_that_changed_while_they_waited_are_not_published(world: World) -> None:
    model, folder = world.model(FLAGGED), world.folder()
    task_id = waiting(world, model, folder)
    (staged,) = [path for area in world.staged(task_id) for path in area.rglob("weights.bin")]
    times = staged.stat()
    content = bytearray(staged.read_bytes())
    content[1000] ^= 1
    with staged.open("r+b") as opened:  # the same inode, size and time, as a disk that errs
        opened.write(content)
    os.utime(staged, ns=(times.st_atime_ns, times.st_mtime_ns))

    decide(world, "approve", task_id)

    task = world.finished(task_id)
    assert (task["status"], task["error"]["code"]) == ("FAILED", "DIGEST_MISMATCH")
    assert folder.everything() == {}


def test_a_rejected_import_leaves_nothing(world: World) -> None:
    model, folder = world.model(FLAGGED), world.folder()
    task_id = waiting(world, model, folder)

    assert not decide(world, "reject", task_id).get("errors")

    assert "not ours" in rejected(world, task_id)["error"]["message"]
    assert folder.everything() == {}
    again = decide(world, "approve", task_id)
    assert again["errors"][0]["extensions"]["code"] == "CONFLICT"


def test_an_import_that_nobody_approves_in_time_is_rejected(world: World) -> None:
    model, folder = world.model(FLAGGED), world.folder()
    task_id = waiting(world, model, folder)

    world.rows(
        "UPDATE stowage_proxy.imports SET approval_until = now() - interval '1 second' WHERE task_id = $1",
        UUID(task_id),
    )

    assert "in time" in rejected(world, task_id)["error"]["message"]
    assert folder.everything() == {}


def test_an_import_that_waits_can_be_cancelled(world: World) -> None:
    model, folder = world.model(FLAGGED), world.folder()
    task_id = waiting(world, model, folder)

    world.cancel(task_id)

    assert world.finished(task_id)["status"] == "CANCELLED"
    assert world.staged(task_id) == []
    assert folder.everything() == {}


def test_a_flagged_revision_is_approved_or_rejected_on_its_way_to_the_artifact_storage(world: World) -> None:
    def decided(verb: str) -> tuple[Model, str, str]:
        model = world.model(FLAGGED)
        task_id = waiting(world, model)
        revision = world.task(task_id)["artifactRevision"]["id"]
        assert world.revision(revision)["status"] == "NEEDS_APPROVAL"
        assert report(world, _REVISION, revision)["structure"]["findings"]
        world.stack.graphql(_REVISION_DECISION % verb, {"id": revision})
        wait_until(lambda: world.task(task_id)["status"] not in OPEN, "it does not end")
        return model, task_id, world.revision(revision)["status"]

    model, task_id, status = decided("approve")
    assert (world.task(task_id)["status"], status) == ("SUCCEEDED", "AVAILABLE")
    stored = world.stack.dir.path / "artifact-storage" / model.id / "main"
    assert digest_tree(stored) == model.digests

    model, task_id, status = decided("reject")
    rejected(world, task_id)
    assert status == "REJECTED"
    assert not Path(world.stack.dir.path / "artifact-storage" / model.id).exists()


def test_a_waiver_lets_a_model_pass_as_long_as_it_lasts(world: World) -> None:
    model, folder = world.model({"pytorch_model.bin": infected()}), world.folder()
    artifact = world.scan(model)["artifact"]["name"]
    assert artifact == model.id
    key = world.rows("SELECT id FROM artifacts WHERE name = $1", model.id)[0]["id"]
    waivers = [
        world.stack.graphql(
            """mutation ($input: CreateVerificationWaiverInput!) {
                 createVerificationWaiver(input: $input) { waiver { id } } }""",
            {
                "input": {
                    "artifactId": str(key),
                    "verifier": verifier,
                    "reason": "looked at by hand",
                    "expiresAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
                    **details,
                }
            },
        )["createVerificationWaiver"]["waiver"]["id"]
        for verifier, details in (
            ("structure", {"rule": "pickle-global", "file": "pytorch_model.bin"}),
            ("picklescan", {}),
        )
    ]

    task = world.bring(model, folder)

    assert task["status"] == "SUCCEEDED"
    assert folder.digests(f"{model.id}/main") == model.digests
    (finding,) = report(world, _TASK, task["id"])["structure"]["findings"]
    (first,) = world.rows("SELECT id FROM verification_waivers WHERE rule IS NOT NULL")
    assert (finding["severity"], finding["waiver"]) == ("block", str(first["id"]))

    world.stack.graphql(
        "mutation ($id: ID!) { revokeVerificationWaiver(input: {id: $id}) { waiver { revokedAt } } }",
        {"id": waivers[0]},
    )
    task = world.bring(model, world.folder())
    assert (task["status"], task["error"]["code"]) == ("FAILED", "VERIFICATION_BLOCKED")
