"""docker-compose.yml, built and started for real; only `make compose-test` asks for that."""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from stowage.processes import free_port
from stowage.samples import write_samples

ROOT = Path(__file__).parents[2]
IMAGE = "stowage:compose-test"

collect_ignore_glob = [] if os.environ.get("STOWAGE_COMPOSE_TEST") else ["test_*.py"]


class Compose:
    """One project of docker-compose.yml with a name and a port of its own, and the sample hub as its registry."""

    def __init__(self, profiles: str = "demo", **environment: str) -> None:
        self.project = f"stowage-test-{secrets.token_hex(4)}"
        self.port = free_port()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STOWAGE_", "HF_"))}
        self._environment = kept | {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_PROFILES": profiles,
            "STOWAGE_PORT": str(self.port),
            "STOWAGE_IMAGE": IMAGE,
            "STOWAGE_S3_IMAGE": f"{IMAGE}-s3",
            "HF_ENDPOINT": "http://hub:8086",
            **environment,
        }
        self._http = httpx.Client(trust_env=False, timeout=30, base_url=f"http://127.0.0.1:{self.port}")

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run `docker compose` and return its output; what it says besides is shown when it fails."""
        ended = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or ended.returncode == 0, (
            f"{arguments}: {ended.stdout[-4000:]}{ended.stderr[-4000:]}"
        )
        return ended.stdout

    def up(self) -> None:
        self.run("up", "--wait", "--wait-timeout", "180")

    def inside(self, service: str, *command: str) -> str:
        return self.run("exec", "-T", service, *command)

    def services(self) -> dict[str, dict[str, Any]]:
        """Return what `docker compose ps` tells, by service."""
        listed = self.run("ps", "--all", "--format", "json").strip()
        # An array, or since version 2.21 an object a line.
        entries = (
            json.loads(listed)
            if listed.startswith("[")
            else [json.loads(line) for line in listed.splitlines()]
        )
        return {entry["Service"]: entry for entry in entries}

    @property
    def token(self) -> str:
        return self.inside("manager", "cat", "/run/stowage/manager/admin-token").strip()

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def graphql(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        answer = self._http.post(
            "/graphql",
            json={"query": query, "variables": dict(variables or {})},
            headers={"Authorization": f"Bearer {self.token}"},
        )
        body = answer.json()
        assert not body.get("errors"), body["errors"]
        data = body["data"]
        assert isinstance(data, dict)
        return data

    def close(self) -> None:
        self._http.close()
        self.run("down", "--volumes", "--timeout", "5", check=False)


def _run(compose: Compose) -> Iterator[Compose]:
    for command in (["docker", "info"], ["docker", "compose", "version"]):
        try:
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no docker command on this machine")
        if ended.returncode:
            pytest.skip(
                f"no container engine answers: `{' '.join(command)}` says {ended.stderr.strip()[:300]}"
            )
    try:
        compose.run("build", "--quiet")
        compose.up()
        yield compose
    finally:
        compose.close()


@pytest.fixture(scope="session")
def compose() -> Iterator[Compose]:
    """The installation, built and up, and gone without a trace afterwards."""
    yield from _run(Compose())


@pytest.fixture(scope="session")
def with_bucket() -> Iterator[Compose]:
    """An installation whose artifact storage is a bucket of the profile s3."""
    yield from _run(Compose("demo,s3", STOWAGE_S3_ENDPOINT="http://s3:8333"))


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("samples")
    write_samples(directory)
    return directory
