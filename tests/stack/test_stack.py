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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from stowage.data_dir import YOURS
from tests.patience import until

ME = "{ me { email role } }"


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


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


def wait_until(condition: Callable[[], object], what: str, timeout: float = 30) -> None:
    until(condition, lambda: what, timeout)


def has_another_process(stack: Any, part: str, pid: int) -> bool:
    return bool(stack.pids[part] != pid)


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


def test_a_ready_stack_knows_its_administrator_by_the_token_file(stack: Any) -> None:
    assert stack.graphql(ME) == {"me": {"email": "admin@localhost", "role": "ADMIN"}}
    assert stat.S_IMODE(stack.dir.admin_token.stat().st_mode) == 0o600
    assert stack.dir.admin_token.read_text().split() == [stack.token]


def test_only_this_user_can_read_what_is_secret(stack: Any) -> None:
    secrets = [stack.dir.admin_token, stack.dir.manager_config, stack.dir.proxy_config]
    secrets += [*stack.dir.secrets.iterdir(), stack.dir.postgres / "password", stack.dir.postgres / "url"]

    assert {path.name for path in secrets if stat.S_IMODE(path.stat().st_mode) != 0o600} == set()
    assert stat.S_IMODE(stack.dir.secrets.stat().st_mode) == 0o700


def test_every_part_listens_on_this_machine_alone(stack: Any) -> None:
    ports = {*stack.state["ports"].values(), int((stack.dir.postgres / "port").read_text())}
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
    listening += [
        line.split()[1] for line in Path("/proc/net/tcp6").read_text().splitlines() if " 0A " in line
    ]
    ours = {address for address in listening if int(address.rpartition(":")[2], 16) in ports}

    assert ours == {f"0100007F:{port:04X}" for port in ports}


def test_a_second_up_says_where_the_first_one_runs_and_leaves_it_alone(stack: Any) -> None:
    before = stack.state

    second = up(stack.dir.path, "--listen", "127.0.0.1:0")

    assert second.returncode == 1
    assert f"already runs on {stack.dir.path}: {stack.url} (process {stack.process.pid})" in second.stderr
    assert stack.state == before
    assert stack.graphql(ME)


def test_sigterm_ends_every_process_and_a_second_start_continues(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir(mode=0o755)
    (data_dir / "mine.txt").write_text("mine")
    first = start_stack(data_dir)
    first.graphql('mutation { createVfolder(input: {name: "kept", usageMode: MODEL}) { vfolder { id } } }')
    token, state = first.token, first.state

    assert first.stop(signal.SIGTERM) == 0
    assert below(data_dir) == set()

    second = start_stack(data_dir)
    assert (second.token, second.state["ports"]) == (token, state["ports"])
    folders = second.graphql("{ vfolders(first: 9) { edges { node { name } } } }")["vfolders"]["edges"]
    assert [edge["node"]["name"] for edge in folders] == ["kept"]
    assert (data_dir / "mine.txt").read_text() == "mine"


def test_ctrl_c_ends_every_process_and_the_state_file_names_none(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    stack = start_stack(tmp_path / "data")

    assert stack.stop(signal.SIGINT) == 0

    assert below(tmp_path / "data") == set()
    assert (stack.state["pid"], stack.state["processes"]) == (None, {})


def test_a_second_sigterm_ends_a_slow_stop_and_nothing_starts_again(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    stack = start_stack(tmp_path / "data")
    stack.kill("manager", signal.SIGSTOP)  # its stop would last for as long as the patience does
    stack.process.terminate()
    wait_until(lambda: "Stopping" in stack.output.read_text(), "the stop does not begin")

    assert stack.stop(signal.SIGTERM) == 0
    assert "starts again" not in stack.output.read_text()
    assert below(tmp_path / "data") == set()


def test_a_start_after_kill_9_of_every_process_at_once_continues(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    first = start_stack(data_dir)
    first.graphql('mutation { createVfolder(input: {name: "kept", usageMode: MODEL}) { vfolder { id } } }')
    for pid in below(data_dir):
        with suppress(ProcessLookupError):  # it died with the supervisor
            os.kill(pid, signal.SIGKILL)
    first.process.wait()

    second = start_stack(data_dir)

    folders = second.graphql("{ vfolders(first: 9) { edges { node { name } } } }")["vfolders"]["edges"]
    assert [edge["node"]["name"] for edge in folders] == ["kept"]


def test_no_process_outlives_a_killed_supervisor(start_stack: Callable[..., Any], tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    stack = start_stack(data_dir)

    stack.process.kill()
    stack.process.wait()

    wait_until(lambda: not below(data_dir), "processes are left", timeout=15)


def test_a_start_right_after_the_supervisor_was_killed_succeeds(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    first = start_stack(tmp_path / "data")
    first.process.kill()
    first.process.wait()

    assert start_stack(tmp_path / "data").graphql(ME)


def test_killed_parts_come_back_one_after_the_other(start_stack: Callable[..., Any], tmp_path: Path) -> None:
    stack = start_stack(tmp_path / "data")
    assert set(stack.pids) == {"supervisor", "postgres", "hub", "proxy", "worker", "manager"}

    for part in ("postgres", "hub", "proxy", "worker", "manager"):
        pid = stack.kill(part)
        wait_until(functools.partial(has_another_process, stack, part, pid), f"{part} is not started again")
        wait_until(stack.is_ready, f"not ready after {part} came back")

    wait_until(lambda: "data" in stack.post(ME), "the manager does not answer")


def test_the_stack_goes_on_when_nobody_reads_its_output_any_more(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stowage", "up", "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen([*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        while b"stays up" not in running.stdout.readline():
            assert running.poll() is None
        running.stdout.close()
        state = tmp_path / "data" / "stack.json"
        for _ in range(2):  # what is written first after the close, and what comes after that
            killed = json.loads(state.read_text())["processes"]["worker"]
            os.kill(killed, signal.SIGKILL)
            wait_until(
                lambda: json.loads(state.read_text())["processes"]["worker"] != killed,  # noqa: B023 -- used at once
                "the worker is not started again",
            )
        running.terminate()

    assert running.returncode == 0
    assert below(tmp_path / "data") == set()


def test_a_port_that_is_taken_is_named_with_the_remedy(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        ended = up(tmp_path / "data", "--listen", taken)

    assert ended.returncode == 1
    assert f"cannot listen on {taken}" in ended.stderr
    assert "--listen" in ended.stderr
    assert below(tmp_path / "data") == set()


def test_a_part_that_cannot_run_ends_the_start_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "storage-proxy.toml").write_text("[proxy]\nname = 7\n")

    ended = up(tmp_path / "data", "--listen", "127.0.0.1:0")

    assert ended.returncode == 1
    assert "again and again" in ended.stderr
    assert "proxy.name" in ended.stderr
    assert below(tmp_path / "data") == set()


def test_a_bucket_as_the_storage_of_verify_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    bucket = '[artifact-storages.bucket]\ntype = "s3"\nendpoint = "http://127.0.0.1:1"\nbucket = "models"\n'
    (tmp_path / "data" / "storage-proxy.toml").write_text(f"{YOURS}\n{bucket}")

    ended = up(tmp_path / "data", "--listen", "127.0.0.1:0", STOWAGE_MANAGER__RESERVOIR__VERIFY="bucket")

    assert ended.returncode == 1
    assert "STOWAGE_MANAGER__RESERVOIR__VERIFY: bucket is an object storage" in ended.stderr
    assert below(tmp_path / "data") == set()


def test_a_lost_database_password_is_named_with_the_remedy(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    stack = start_stack(tmp_path / "data")
    stack.stop()
    (stack.dir.postgres / "password").unlink()

    ended = up(tmp_path / "data", "--listen", "127.0.0.1:0")

    assert ended.returncode == 1
    assert f"the password in {stack.dir.postgres / 'password'}; put the one back" in ended.stderr


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


def test_endpoint_and_token_of_the_environment_reach_the_configuration_and_no_process(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    stack = start_stack(
        tmp_path / "data",
        hf_endpoint="http://127.0.0.1:9/mirror/",
        environment={"HF_TOKEN": "hf_planted"},
        proxy_settings="[transfer]\nretries = 1",
    )

    configuration = stack.dir.proxy_config.read_text()
    assert 'url = "http://127.0.0.1:9/mirror"' in configuration
    assert "[transfer]\nretries = 1" in configuration
    assert (stack.dir.secrets / "registry-token").read_text() == "hf_planted\n"
    children = [pid for name, pid in stack.pids.items() if name != "supervisor"]
    assert [pid for pid in children if b"hf_planted" in Path(f"/proc/{pid}/environ").read_bytes()] == []
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "postgres/data" not in str(path)]
    assert [path.name for path in written if b"hf_planted" in path.read_bytes()] == ["registry-token"]


def plain_start(start_stack: Callable[..., Any], data_dir: Path, **environment: str) -> Any:
    """Start with neither --sample-hub nor HF_ENDPOINT."""
    return start_stack(data_dir, hf_endpoint=" ", environment=environment)


def registry_of(stack: Any) -> dict[str, str]:
    registries = tomllib.loads(stack.dir.proxy_config.read_text())["artifact-registries"]
    return dict(registries["huggingface"])


def test_a_plain_start_goes_on_with_the_registry_and_the_token_of_the_last_one(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    hub = "http://127.0.0.1:9/mirror"
    first = start_stack(tmp_path / "data", hf_endpoint=hub, environment={"HF_TOKEN": "hf_first"})
    first.kill_all()

    second = plain_start(start_stack, tmp_path / "data")

    wait_until(lambda: f"{hub} (as at the last start)" in second.output.read_text(), "it is not said")
    assert registry_of(second) == {
        "type": "huggingface",
        "url": hub,
        "token-file": str(second.dir.secrets / "registry-token"),
    }
    assert (second.dir.secrets / "registry-token").read_text() == "hf_first\n"


def test_a_plain_start_goes_on_with_the_sample_hub(start_stack: Callable[..., Any], tmp_path: Path) -> None:
    first = start_stack(tmp_path / "data")
    url = registry_of(first)["url"]
    first.stop(signal.SIGINT)

    second = plain_start(start_stack, tmp_path / "data")

    assert "hub" in second.pids
    assert registry_of(second)["url"] == url


def test_another_endpoint_wins_and_never_gets_the_token_of_the_last_one(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    first = start_stack(
        tmp_path / "data", hf_endpoint="http://127.0.0.1:9", environment={"HF_TOKEN": "hf_first"}
    )
    first.stop()
    with socket.create_server(
        ("127.0.0.1", 0)
    ) as other:  # a start that fails half-way changes nothing about it
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        assert up(tmp_path / "data", "--listen", taken, HF_ENDPOINT="http://127.0.0.1:10").returncode == 1

    second = start_stack(tmp_path / "data", hf_endpoint="http://127.0.0.1:10")

    assert registry_of(second) == {"type": "huggingface", "url": "http://127.0.0.1:10"}
    assert not (second.dir.secrets / "registry-token").exists()


def test_a_start_that_fails_forgets_no_registry(start_stack: Callable[..., Any], tmp_path: Path) -> None:
    start_stack(tmp_path / "data", hf_endpoint="http://127.0.0.1:9").stop()
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert up(tmp_path / "data", "--listen", f"127.0.0.1:{other.getsockname()[1]}").returncode == 1

    assert json.loads((tmp_path / "data" / "stack.json").read_text())["registry"] == {
        "endpoint": "http://127.0.0.1:9"
    }


def test_the_first_model_lies_where_up_says(start_stack: Callable[..., Any], tmp_path: Path) -> None:
    stack = start_stack(tmp_path / "data", arguments=("--import", "sample/tiny-bert"))

    def place_told() -> Path | None:
        # The whole line of the path, and what follows it: it may be read while it is written.
        found = re.search(r"It lies in[^\n]*\n(\S+)\n", stack.output.read_text())
        return Path(found[1]) if found else None

    wait_until(place_told, "no import", timeout=60)
    place = place_told()
    assert place is not None

    sample = stack.dir.hub / "sample" / "tiny-bert"
    assert (place / "config.json").read_bytes() == (sample / "config.json").read_bytes()
    assert place.is_relative_to(stack.volume)
    wait_until(lambda: f"{stack.url}/graphql" in stack.output.read_text(), "nothing after the place")
    assert stack.is_ready(), "and it stays up"


def test_a_stop_in_the_middle_of_the_first_import_ends_that_too(
    start_stack: Callable[..., Any], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        stack = start_stack(tmp_path / "data", hf_endpoint=endpoint, arguments=("--import", "org/slow"))
        silent.accept()[0].close()
        connection, _ = silent.accept()
        with connection:
            assert stack.stop(signal.SIGTERM) == 0

    assert below(tmp_path / "data") == set()
