"""One stack for all acceptance tests, with quick patience, before a hub and a mirror that misbehave on demand."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RunningStack
from tests.e2e.world import World
from tests.faults.hub import FaultHub

PATIENCE = """
[transfer]
backoff-initial = 0.05
backoff-max = 0.2
stall-timeout = 2.0
retries = 3
"""
TOKEN = "hf_planted_token_of_the_registry"
SMALL_BYTES = 4 << 20


@pytest.fixture(scope="package")
def hubs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FaultHub, FaultHub]]:
    """The hub of the default registry, and a mirror below a path, whose lists come in pages of two."""
    with (
        FaultHub(tmp_path_factory.mktemp("hub")) as hub,
        FaultHub(tmp_path_factory.mktemp("mirror"), prefix="/mirror/of-hubs", page_size=2) as mirror,
    ):
        yield hub, mirror


@pytest.fixture(scope="package")
def small_file_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of 4 MiB; a plain directory where nobody may mount one (see `disk`)."""
    path = tmp_path_factory.mktemp("small")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES},mode=0755", "stowage-test", str(path)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    yield path
    if mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(scope="package")
def shared_world(
    tmp_path_factory: pytest.TempPathFactory, hubs: tuple[FaultHub, FaultHub], small_file_system: Path
) -> Iterator[World]:
    hub, mirror = hubs
    closed = tmp_path_factory.mktemp("closed")
    stack = RunningStack(
        tmp_path_factory.mktemp("e2e") / "data",
        hf_endpoint=hub.url,
        environment={"HF_TOKEN": TOKEN},
        proxy_settings=f"""{PATIENCE}
[volume.small]
path = "{small_file_system}"

[volume.closed]
path = "{closed}"

[artifact-registries.mirror]
url = "{mirror.url}"
""",
        manager_settings=f"""
[artifact-registries.mirror]
url = "{mirror.url}"
""",
    )
    try:
        world = World(stack, hub, mirror, small_file_system, closed=closed)
        world.rows(
            "INSERT INTO host_permissions (id, host, permissions) VALUES (gen_random_uuid(), 'local:small', $1)",
            ["create-vfolder", "upload-file", "download-file", "delete-vfolder"],
        )
        yield world
    finally:
        stack.stop()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """The shared stack; afterwards the hubs are good again and no import is left open."""
    hubs = (shared_world.hub, shared_world.mirror)
    for hub in hubs:
        hub.forget()
    # What other tests put into artifact storages would be copied instead of fetched.
    shared_world.rows("DELETE FROM stowage_proxy.holdings")
    yield shared_world
    for hub in hubs:
        hub.clear()
    left = shared_world.rows("SELECT id::text FROM import_tasks WHERE finished_at IS NULL")
    for row in left:
        shared_world.cancel(row["id"])
        shared_world.finished(row["id"])


@pytest.fixture
def disk(world: World) -> Path:
    """The small file system's mount point, if this process may mount one."""
    if not world.small.is_mount():
        pytest.skip("mounting a small file system needs the right to mount")
    return world.small
