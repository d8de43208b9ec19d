"""What somebody gets who only runs `docker compose up --wait`."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.compose.conftest import Compose
from tests.faults.models import digest_tree

OPEN = {"PENDING", "RUNNING"}
MODEL = "sample/tiny-gpt"


def order(compose: Compose, folder: str | None, model: str = MODEL) -> str:
    found = compose.graphql(
        """mutation ($model: String!) {
             scanArtifactModels(input: {models: [{modelId: $model, revision: "main"}]}) { artifactRevision { edges { node { id } } } } }""",
        {"model": model},
    )["scanArtifactModels"]["artifactRevision"]["edges"][0]["node"]["id"]
    started = compose.graphql(
        """mutation ($revision: ID!, $folder: ID) {
             importArtifacts(input: {artifactRevisionIds: [$revision], vfolderId: $folder}) { tasks { taskId } } }""",
        {"revision": found, "folder": folder},
    )
    return str(started["importArtifacts"]["tasks"][0]["taskId"])


def task(compose: Compose, task_id: str) -> dict[str, Any]:
    found = compose.graphql(
        "query ($id: ID!) { importTask(id: $id) { status path error { code message } } }", {"id": task_id}
    )["importTask"]
    assert isinstance(found, dict)
    return found


def finished(compose: Compose, task_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while task(compose, task_id)["status"] in OPEN:
        assert time.monotonic() < deadline, task(compose, task_id)
        time.sleep(0.2)
    return task(compose, task_id)


def folder(compose: Compose, name: str) -> str:
    made = compose.graphql(
        "mutation ($name: String!) { createVfolder(input: {name: $name, usageMode: MODEL}) { vfolder { id } } }",
        {"name": name},
    )
    return str(made["createVfolder"]["vfolder"]["id"])


def digests(compose: Compose, model: str = MODEL) -> dict[str, str]:
    """Return what the volume holds of a model, by the sha256sum of the worker's container."""
    found = compose.inside(
        "worker",
        *(
            "sh",
            "-c",
            f"cd /srv/stowage/volume1/*/??/??/*/{model}/main && find . -type f -exec sha256sum {{}} +",
        ),
    )
    pairs = [line.split("  ./", 1) for line in found.splitlines()]
    return {path: digest for digest, path in pairs if not path.startswith(".stowage/")}


@pytest.fixture(scope="session")
def imported(compose: Compose) -> tuple[str, str]:
    """A folder and the task that filled it, through GraphQL from outside."""
    target = folder(compose, "first")
    task_id = order(compose, target)
    assert finished(compose, task_id)["status"] == "SUCCEEDED"
    return target, task_id


def test_a_model_is_imported_from_outside(compose: Compose, imported: tuple[str, str], samples: Path) -> None:
    assert digests(compose) == digest_tree(samples / MODEL)


def test_a_model_is_imported_into_the_artifact_storage(compose: Compose, samples: Path) -> None:
    task_id = order(compose, None)
    assert finished(compose, task_id) == {"status": "SUCCEEDED", "path": f"{MODEL}/main", "error": None}
    wanted = {f"./{path}" for path in digest_tree(samples / MODEL)}
    listed = compose.inside(
        "worker", "sh", "-c", f"cd /srv/stowage/artifact-storage/{MODEL}/main && find . -type f"
    )
    assert wanted <= set(listed.splitlines())


def test_nothing_of_ours_runs_as_root_or_can_write_its_image(compose: Compose) -> None:
    for service in ("manager", "proxy", "worker", "hub"):
        status = compose.inside(
            service, "sh", "-c", "id -u; grep CapEff /proc/self/status; touch /x 2>&1 || true"
        )
        assert status.split()[:3] == ["10001", "CapEff:", "0000000000000000"]
        assert "Read-only file system" in status


def test_only_the_managers_port_is_open_and_on_this_machine_alone(compose: Compose) -> None:
    opened = {
        (service, port["URL"], port["PublishedPort"])
        for service, entry in compose.services().items()
        for port in entry.get("Publishers") or []
        if port["PublishedPort"]
    }
    assert opened == {("manager", "127.0.0.1", compose.port)}


def test_every_service_is_healthy_or_done(compose: Compose) -> None:
    services = compose.services()
    assert {name for name, entry in services.items() if entry["Health"] == "healthy"} == {
        *("manager", "proxy", "worker", "postgres", "hub")
    }
    assert {name: entry["ExitCode"] for name, entry in services.items() if entry["State"] == "exited"} == {
        "secrets": 0,
        "migrate": 0,
    }


@pytest.mark.parametrize(
    ("service", "part", "file"),
    [
        ("manager", "manager", "manager.toml"),
        ("proxy", "proxy", "storage-proxy.toml"),
        ("worker", "worker", "storage-proxy.toml"),
    ],
)
def test_the_settings_are_without_fault(compose: Compose, service: str, part: str, file: str) -> None:
    assert "migrated" in compose.inside(
        service, "stowage", part, "--config", f"/etc/stowage/{file}", "--check-config"
    )


def test_each_service_has_its_own_secrets_and_no_log_holds_one(
    compose: Compose, imported: tuple[str, str]
) -> None:
    assert compose.inside("worker", "ls", "-A", "/run/stowage/manager") == ""
    assert compose.inside("manager", "ls", "-A", "/run/stowage/proxy") == ""
    database = compose.inside("manager", "cat", "/run/stowage/manager/database-url")
    planted = {
        compose.token,
        compose.inside("proxy", "cat", "/run/stowage/proxy/proxy-secret").strip(),
        database.split(":")[2].split("@")[0],
    }
    logs = compose.run("logs", "--no-color")
    assert "import ended" in logs
    for secret in planted:
        assert len(secret) >= 40
        assert secret not in logs


def test_an_import_goes_on_when_its_worker_comes_back(compose: Compose, samples: Path) -> None:
    model = "sample/many-files"
    task_id = order(compose, folder(compose, "second"), model)
    compose.run("kill", "--signal", "KILL", "worker")
    compose.run("up", "--detach", "--no-deps", "--wait", "worker")
    assert finished(compose, task_id)["status"] == "SUCCEEDED"
    assert digests(compose, model) == digest_tree(samples / model)


def test_everything_is_there_after_down_and_up(
    compose: Compose, imported: tuple[str, str], samples: Path
) -> None:
    target, task_id = imported
    token = compose.token
    compose.run("down")
    assert compose.services() == {}

    compose.up()

    assert compose.token == token
    assert task(compose, task_id)["status"] == "SUCCEEDED"
    files = compose.graphql(
        "query ($id: ID!, $path: String) { vfolderFiles(vfolderId: $id, path: $path) { path } }",
        {"id": target, "path": f"{MODEL}/main"},
    )["vfolderFiles"]
    assert {Path(entry["path"]).name for entry in files} >= {"config.json"}
    assert digests(compose) == digest_tree(samples / MODEL)
    assert compose.get("/readyz").json() == {"ready": True}
