"""`stowage up` on two directories that it starts on again and again, and starts that come to nothing.

A start is dear. Each start of such a directory is a fixture that tells what it saw and how it ended; the next one goes on
with what it left.
"""

import asyncio
import functools
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from stowage.data_dir import YOURS, DataDir
from stowage.embedded_postgres import EmbeddedPostgres
from stowage.processes import Part
from stowage.stack import Stack, StackOptions
from tests.conftest import RunningStack
from tests.patience import until

ME = "{ me { email role } }"
ADMIN = {"me": {"email": "admin@localhost", "role": "ADMIN"}}
KEPT = 'mutation { createVfolder(input: {name: "kept", usageMode: MODEL}) { vfolder { id } } }'
FOLDERS = "{ vfolders(first: 9) { edges { node { name } } } }"
MIRROR = "http://127.0.0.1:9/mirror"

# What the parts find before anything else: they are broken as a bug would break them.
PLANTED = """
import os, sys

if {"manager", "storage_proxy", "storage_proxy.worker"} & set(sys.orig_argv):
    os.write(2, b"a planted fault\\n")
    os._exit(1)
"""


def below(data_dir: Path) -> set[int]:
    """Every process that works for the stack of this directory, known to it or not."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                cwd = (entry / "cwd").readlink()
                command = (entry / "cmdline").read_bytes() + b"\0" + (entry / "environ").read_bytes()
            except OSError:
                continue
            if cwd.is_relative_to(data_dir) or str(data_dir).encode() in command:
                found.add(int(entry.name))
    return found


def listening(ports: set[int]) -> set[str]:
    """Where anybody listens on these ports, as the kernel writes addresses."""
    lines = [line for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()]
    addresses = {line.split()[1] for line in lines if " 0A " in line}
    return {address for address in addresses if int(address.rpartition(":")[2], 16) in ports}


def wait_until(condition: Callable[[], object], what: str, timeout: float = 30) -> None:
    until(condition, lambda: what, timeout)


def up(data_dir: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `stowage up` where it is expected to end by itself."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("STOWAGE_", "HF_"))}
    return subprocess.run(
        [sys.executable, "-m", "stowage", "up", "--data-dir", str(data_dir), *arguments],
        env=kept | {"STOWAGE_FSYNC": "off"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def taken_port() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield f"127.0.0.1:{other.getsockname()[1]}"


@dataclass
class Life:
    """What one start showed while it was ready, and what was seen of it until it had ended."""

    dir: DataDir
    state: dict[str, Any]
    token: str
    pids: dict[str, int]
    me: dict[str, Any]
    folders: list[str]
    proxy_config: dict[str, Any]
    registry_token: str | None
    told: str = ""
    status: int | None = None
    left: set[int] | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def registry(self) -> dict[str, str]:
        return dict(self.proxy_config["artifact-registries"]["huggingface"])


class Failed(NamedTuple):
    """What was told by a start on an address that is taken, and what it left."""

    address: str
    ended: subprocess.CompletedProcess[str]
    state: dict[str, Any]
    left: set[int]


@contextmanager
def living(data_dir: Path, **details: Any) -> Iterator[tuple[RunningStack, Life]]:
    """Start a stack and look at it; what the block does not end is stopped."""
    output = data_dir.with_name(f"{data_dir.name}.out")
    earlier = output.read_text() if output.exists() else ""
    stack = RunningStack(data_dir, **details)
    try:
        token = stack.dir.registry_token
        life = Life(
            dir=stack.dir,
            state=stack.state,
            token=stack.token,
            pids=stack.pids,
            me=stack.graphql(ME),
            folders=[edge["node"]["name"] for edge in stack.graphql(FOLDERS)["vfolders"]["edges"]],
            proxy_config=tomllib.loads(stack.dir.proxy_config.read_text()),
            registry_token=token.read_text() if token.exists() else None,
        )
        yield stack, life
    finally:
        stack.stop()
    life.told = output.read_text().removeprefix(earlier)


# The first directory, with the sample hub.


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Start in a directory that is there, with an import; a second `up` comes by; SIGTERM."""
    data_dir = tmp_path_factory.mktemp("samples") / "data"
    data_dir.mkdir(mode=0o755)
    (data_dir / "mine.txt").write_text("mine")
    with living(data_dir, arguments=("--import", "sample/tiny-bert")) as (stack, life):
        stack.graphql(KEPT)
        life.more["ports"] = {*stack.state["ports"].values(), int((stack.dir.postgres / "port").read_text())}
        life.more["listening"] = listening(life.more["ports"])
        # The last line: all before it is written.
        wait_until(lambda: "stays up" in stack.output.read_text(), "no import", timeout=60)
        state = stack.state
        life.more["another"] = up(data_dir, "--listen", "127.0.0.1:0")
        assert (stack.state, stack.graphql(ME), stack.is_ready()) == (state, ADMIN, True)
        life.status, life.left = stack.stop(signal.SIGTERM), below(data_dir)
    return life


@pytest.fixture(scope="module")
def second(first: Life) -> Life:
    """Start with neither --sample-hub nor HF_ENDPOINT; the supervisor is killed."""
    with living(first.dir.path, hf_endpoint=" ") as (stack, life):
        stack.process.kill()
        stack.process.wait()
    return life


@pytest.fixture(scope="module")
def third(second: Life) -> Life:
    """Start at once; SIGTERM while the manager hangs, and once more."""
    with living(second.dir.path) as (stack, life):
        stack.kill("manager", signal.SIGSTOP)  # its stop would last for as long as the patience does
        stack.process.terminate()
        # The supervisor of the second start was killed: it said nothing of the kind.
        wait_until(lambda: stack.output.read_text().count("Stopping") == 2, "the stop does not begin")
        life.status, life.left = stack.stop(signal.SIGTERM), below(stack.dir.path)
    return life


def test_a_ready_stack_knows_its_administrator_by_the_token_file(first: Life) -> None:
    assert first.me == ADMIN
    assert stat.S_IMODE(first.dir.admin_token.stat().st_mode) == 0o600
    assert first.dir.admin_token.read_text().split() == [first.token]


def test_only_this_user_can_read_what_is_secret(first: Life) -> None:
    secrets = [first.dir.admin_token, first.dir.manager_config, first.dir.proxy_config]
    secrets += [*first.dir.secrets.iterdir(), first.dir.postgres / "password", first.dir.postgres / "url"]

    assert {path.name for path in secrets if stat.S_IMODE(path.stat().st_mode) != 0o600} == set()
    assert stat.S_IMODE(first.dir.secrets.stat().st_mode) == 0o700


def test_every_part_listens_on_this_machine_alone(first: Life) -> None:
    assert len(first.more["ports"]) == 4
    assert first.more["listening"] == {f"0100007F:{port:04X}" for port in first.more["ports"]}


def test_the_first_model_lies_where_up_says(first: Life) -> None:
    found = re.search(r"It lies in[^\n]*\n(\S+)\n", first.told)
    assert found
    place, sample = Path(found[1]), first.dir.hub / "sample" / "tiny-bert"
    assert (place / "config.json").read_bytes() == (sample / "config.json").read_bytes()
    assert place.is_relative_to(first.dir.volume)
    assert f"{first.state['url']}/graphql" in first.told[found.end() :]


def test_a_second_up_says_where_the_first_one_runs_and_leaves_it_alone(first: Life) -> None:
    another, process = first.more["another"], first.pids["supervisor"]
    assert another.returncode == 1
    assert f"already runs on {first.dir.path}: {first.state['url']} (process {process})" in another.stderr


def test_sigterm_ends_every_process_and_a_second_start_continues(first: Life, second: Life) -> None:
    assert (first.status, first.left) == (0, set())
    assert (second.token, second.state["ports"]) == (first.token, first.state["ports"])
    assert sorted(second.folders) == ["kept", "tiny-bert"]
    assert (second.dir.path / "mine.txt").read_text() == "mine"


def test_a_plain_start_goes_on_with_the_sample_hub(first: Life, second: Life) -> None:
    assert "hub" in second.pids
    assert second.registry["url"] == first.registry["url"]


def test_a_start_right_after_the_supervisor_was_killed_succeeds(third: Life) -> None:
    assert third.me == ADMIN


def test_a_second_sigterm_ends_a_slow_stop_and_nothing_starts_again(third: Life) -> None:
    assert (third.status, third.left) == (0, set())
    assert "starts again" not in third.told


# The second directory, with a registry that the environment names.


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Start with an endpoint, a token and a setting of the operator's; kill -9 of every process at once."""
    data_dir = tmp_path_factory.mktemp("mirror") / "data"
    with living(
        data_dir,
        hf_endpoint=f"{MIRROR}/",
        environment={"HF_TOKEN": "hf_planted"},
        proxy_settings="[transfer]\nretries = 1",
    ) as (stack, life):
        children = [pid for name, pid in life.pids.items() if name != "supervisor"]
        life.more["environments"] = [Path(f"/proc/{pid}/environ").read_bytes() for pid in children]
        stack.graphql(KEPT)
        written = [path for path in data_dir.parent.rglob("*") if path.is_file()]
        life.more["written"] = {
            path.name: path.read_bytes() for path in written if "postgres/data" not in str(path)
        }
        for pid in below(data_dir):
            with suppress(ProcessLookupError):  # it died with the supervisor
                os.kill(pid, signal.SIGKILL)
        stack.process.wait()
    return life


@pytest.fixture(scope="module")
def plain(mirrored: Life) -> Life:
    """Start with neither --sample-hub nor HF_ENDPOINT; the supervisor is killed, and the others are waited for."""
    with living(mirrored.dir.path, hf_endpoint=" ") as (stack, life):
        kept = f"{MIRROR} (as at the last start)"
        wait_until(lambda: kept in stack.output.read_text(), "it is not said")
        stack.process.kill()
        stack.process.wait()
        wait_until(lambda: not below(stack.dir.path), "processes are left", timeout=15)
        life.left = below(stack.dir.path)
    return life


@pytest.fixture(scope="module")
def failed(plain: Life) -> Failed:
    """Start on a port that is taken."""
    with taken_port() as address:
        ended = up(plain.dir.path, "--listen", address)
    return Failed(address, ended, json.loads(plain.dir.state.read_text()), below(plain.dir.path))


@pytest.fixture(scope="module")
def other(plain: Life, failed: Failed) -> Life:
    """Start with another endpoint, after one that failed half-way; SIGTERM in the middle of the first import."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with taken_port() as address:
            assert up(plain.dir.path, "--listen", address, HF_ENDPOINT=endpoint).returncode == 1
        with living(plain.dir.path, hf_endpoint=endpoint, arguments=("--import", "org/slow")) as (
            stack,
            life,
        ):
            silent.accept()[0].close()
            connection, _ = silent.accept()
            with connection:
                life.status, life.left = stack.stop(signal.SIGTERM), below(stack.dir.path)
    life.more["endpoint"] = endpoint
    return life


def test_endpoint_and_token_of_the_environment_reach_the_configuration_and_no_process(mirrored: Life) -> None:
    assert mirrored.registry == {
        "type": "huggingface",
        "url": MIRROR,
        "token-file": str(mirrored.dir.registry_token),
    }
    assert mirrored.proxy_config["transfer"] == {"retries": 1}
    assert mirrored.registry_token == "hf_planted\n"
    assert len(mirrored.more["environments"]) == 4
    assert [each for each in mirrored.more["environments"] if b"hf_planted" in each] == []
    written = mirrored.more["written"]
    assert [name for name, content in written.items() if b"hf_planted" in content] == ["registry-token"]


def test_a_start_after_kill_9_of_every_process_at_once_continues(plain: Life) -> None:
    assert plain.folders == ["kept"]


def test_a_plain_start_goes_on_with_the_registry_and_the_token_of_the_last_one(
    mirrored: Life, plain: Life
) -> None:
    assert plain.registry == mirrored.registry
    assert plain.registry_token == "hf_planted\n"


def test_no_process_outlives_a_killed_supervisor(plain: Life) -> None:
    assert plain.left == set()


def test_a_port_that_is_taken_is_named_with_the_remedy(failed: Failed) -> None:
    assert failed.ended.returncode == 1
    assert f"cannot listen on {failed.address}" in failed.ended.stderr
    assert "--listen" in failed.ended.stderr
    assert failed.left == set()


def test_a_start_that_fails_forgets_no_registry(failed: Failed) -> None:
    assert failed.state["registry"] == {"endpoint": MIRROR}


def test_another_endpoint_wins_and_never_gets_the_token_of_the_last_one(other: Life) -> None:
    assert other.registry == {"type": "huggingface", "url": other.more["endpoint"]}
    assert other.registry_token is None
    assert not other.dir.registry_token.exists()


def test_a_stop_in_the_middle_of_the_first_import_ends_that_too(other: Life) -> None:
    assert (other.status, other.left) == (0, set())


# Starts on a directory of their own.


@pytest.mark.anyio
async def test_a_second_signal_reaches_the_part_whose_stop_is_slow(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[bytes]:
        deaf = functools.partial(signal.signal, signal.SIGTERM, signal.SIG_IGN)
        return subprocess.Popen(["sleep", "600"], preexec_fn=deaf)  # noqa: PLW1509 -- fork and exec only

    stack = Stack(StackOptions(tmp_path, "127.0.0.1", 0), say=print)
    part = Part(
        "manager",
        start,
        log=tmp_path / "log",
        changed=lambda: None,
        ended=lambda _part, _pause: None,
        stop_signals=((signal.SIGTERM, 600.0), (signal.SIGKILL, 10.0)),
    )
    stack._parts["manager"] = part
    with ThreadPoolExecutor() as threads:
        part.keep(threads)
        while part.process is None:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(stack.stop())
        await asyncio.sleep(0)
        stack.hasten()
        await stopping

    assert part.process.poll() == -signal.SIGKILL


def test_killed_parts_come_back_though_nobody_reads_the_output_until_ctrl_c(
    tmp_path: Path,
) -> None:
    data = DataDir(tmp_path / "data")
    command = [sys.executable, "-m", "stowage", "up", "--data-dir", str(data.path), "--sample-hub"]

    def state() -> dict[str, Any]:
        found = json.loads(data.state.read_text())
        assert isinstance(found, dict)
        return found

    def has_another_process(part: str, pid: int) -> bool:
        return bool(state()["processes"][part] != pid)

    def is_ready() -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{state()['url']}/readyz", trust_env=False).status_code == httpx.codes.OK
        return False

    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0"],
        env=os.environ | {"STOWAGE_FSYNC": "off"},
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        while b"stays up" not in running.stdout.readline():
            assert running.poll() is None
        running.stdout.close()
        assert set(state()["processes"]) == {"postgres", "hub", "proxy", "worker", "manager"}
        # Each end is told: what is written first after the close, and what comes after that.
        for part in ("postgres", "hub", "proxy", "worker", "manager"):
            pid = state()["processes"][part]
            os.kill(pid, signal.SIGKILL)
            wait_until(functools.partial(has_another_process, part, pid), f"{part} is not started again")
            wait_until(is_ready, f"not ready after {part} came back")
        answer = httpx.post(
            f"{state()['url']}/graphql",
            json={"query": ME},
            headers={"Authorization": f"Bearer {data.admin_token.read_text().strip()}"},
            trust_env=False,
        )
        assert answer.json() == {"data": ADMIN}
        running.send_signal(signal.SIGINT)

    assert running.returncode == 0
    assert below(data.path) == set()
    assert (state()["pid"], state()["processes"]) == (None, {})


def test_a_part_that_cannot_run_ends_the_start_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(PLANTED)

    ended = up(tmp_path / "data", "--listen", "127.0.0.1:0", PYTHONPATH=str(tmp_path))

    assert ended.returncode == 1
    assert re.search("the part (proxy|manager|worker) ended with status 1, again and again", ended.stderr)
    assert "a planted fault" in ended.stderr
    assert below(tmp_path / "data") == set()


def test_a_bucket_as_the_storage_of_verify_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    bucket = '[artifact-storages.bucket]\ntype = "s3"\nendpoint = "http://127.0.0.1:1"\nbucket = "models"\n'
    (tmp_path / "data" / "storage-proxy.toml").write_text(f"{YOURS}\n{bucket}")

    ended = up(tmp_path / "data", "--listen", "127.0.0.1:0", STOWAGE_MANAGER__RESERVOIR__VERIFY="bucket")

    assert ended.returncode == 1
    assert "STOWAGE_MANAGER__RESERVOIR__VERIFY: bucket is an object storage" in ended.stderr
    assert below(tmp_path / "data") == set()


def test_a_lost_database_password_is_named_with_the_remedy(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "data")
    cluster = EmbeddedPostgres(data.postgres, durable=False)
    cluster.prepare()
    cluster.release()
    (data.postgres / "password").unlink()

    ended = up(data.path, "--listen", "127.0.0.1:0")

    assert ended.returncode == 1
    assert f"the password in {data.postgres / 'password'}; put the one back" in ended.stderr


def test_an_interrupt_while_starting_leaves_no_process(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with subprocess.Popen(
        [sys.executable, "-m", "stowage", "up", "--data-dir", str(data_dir), "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as starting:
        assert starting.stdout is not None
        assert b"PostgreSQL" in starting.stdout.readline()
        starting.terminate()
        starting.stdout.read()

    assert starting.returncode == 0
    assert below(data_dir) == set()


def test_a_wrong_endpoint_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    ended = up(tmp_path / "data", HF_ENDPOINT="ftp://hub.example.org")

    assert ended.returncode == 2
    assert "HF_ENDPOINT" in ended.stderr
    assert "https://HOST" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_a_data_dir_that_is_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")

    ended = up(tmp_path / "data", "--listen", "127.0.0.1:0")

    assert ended.returncode == 1
    assert str(tmp_path / "data") in ended.stderr
