"""The commands against a whole stack, as a person runs them."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.stand_in import Outcome
from tests.cli.terminal import on_a_terminal, without_escapes
from tests.conftest import RunningStack
from tests.faults.hub import FaultHub, Rule
from tests.faults.models import digest_tree, make_model

MODEL = "acme/halting"
SIZE = 2 << 20
HALT = Rule(path=r"/resolve/.*weights", stall_after=SIZE // 2)
NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultHub]:
    directory = tmp_path_factory.mktemp("hub")
    make_model(directory, MODEL, {"config.json": b"{}", "weights.bin": SIZE, "onnx/part.bin": 1000})
    make_model(directory, MODEL, {"config.json": b"{}"}, branch="v1.0")
    with FaultHub(directory) as hub:
        yield hub


@pytest.fixture(scope="module")
def stack(hub: FaultHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    stack = RunningStack(tmp_path_factory.mktemp("cli") / "data", hf_endpoint=hub.url)
    yield stack
    stack.stop()


@pytest.fixture
def shell(stack: RunningStack, stowage: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> "Shell":
    monkeypatch.setenv("STOWAGE_DATA_DIR", str(stack.dir.path))
    # A whole stack answers to each question.
    monkeypatch.setattr("stowage.commands.waiting.FASTEST", 0.1)
    monkeypatch.setattr("stowage.commands.waiting.SLOWEST", 0.2)
    return Shell(stack, stowage)


@pytest.fixture(autouse=True)
def good_hub(hub: FaultHub) -> Iterator[None]:
    yield
    hub.clear()


class Shell:
    """Runs `stowage` as the administrator of a stack: in this process, or as `command` in one of its own."""

    def __init__(self, stack: RunningStack, run: Callable[..., Outcome]) -> None:
        self.stack = stack
        self._run = run

    def __call__(self, *arguments: str, token: str | None = None) -> Outcome:
        with pytest.MonkeyPatch.context() as patch:
            if token is not None:
                patch.setenv("STOWAGE_TOKEN", token)
            return self._run(*arguments)

    def json(self, *arguments: str, token: str | None = None) -> Any:
        done = self(*arguments, "--json", token=token)
        assert done.status == 0, done.err
        return json.loads(done.out)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "stowage", *arguments]

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


def wait_for_line(process: "subprocess.Popen[str]", pattern: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(pattern, line):
            return
    assert process.stderr is not None
    pytest.fail(f"no line {pattern!r}; it said {process.stderr.read()}")


def test_a_scan_shows_every_branch(shell: Shell) -> None:
    rows = [line.split() for line in shell("scan", MODEL).out.splitlines()[1:]]
    assert sorted(row[1] for row in rows) == ["main", "v1.0"]


def test_an_import_into_a_new_folder_is_exact_and_listed(shell: Shell, hub: FaultHub) -> None:
    with shell.start("import", MODEL, "--to", "walk", "--create") as importing:
        out, err = importing.communicate()
    assert (importing.returncode, err) == (0, "")
    assert "acme/halting@main: succeeded" in out
    assert f"{MODEL}/main/onnx/part.bin" in out
    assert "3 files, 2.0 MiB" in out
    folder = re.search(r"^folder +walk \((\S+)\)$", out, re.MULTILINE)
    assert folder
    arrived = digest_tree(place_of(shell, folder[1]) / MODEL / "main")
    assert arrived == digest_tree(hub.directory / MODEL)


def test_json_holds_task_destination_and_files(shell: Shell) -> None:
    shell("folder", "create", "for-json")
    task = shell.json("import", f"{MODEL}@v1.0", "--to", "for-json")
    assert (task["status"], task["destination"]["vfolder"]["name"]) == ("SUCCEEDED", "for-json")
    assert [(file["path"], file["size"]) for file in task["files"]] == [(f"{MODEL}/v1.0/config.json", 2)]
    assert shell.json("task", "show", task["id"])["commit"] == task["commit"]


def test_an_import_into_the_artifact_storage_happens_once(shell: Shell) -> None:
    first = shell.json("import", f"{MODEL}@v1.0")
    assert first["destination"]["storageName"] == "archive"
    again = shell("import", f"{MODEL}@v1.0")
    assert again.status == 0
    assert "holds it already" in again.out
    assert shell.json("import", f"{MODEL}@v1.0", "--force")["id"] not in {None, first["id"]}


def test_an_import_that_was_only_ordered_can_be_watched(shell: Shell, hub: FaultHub) -> None:
    hub.set(HALT)
    task_id = shell.json("import", MODEL, "--to", "watched", "--create", "--no-wait")["id"]
    with shell.start("task", "watch", task_id) as watching:
        wait_for_line(watching, r"download [4-5]\d%")
        assert task_id in shell("task", "list", "--status", "running").out
        hub.clear()
        out, err = watching.communicate()
    assert watching.returncode == 0, err
    assert f"{MODEL}/main/weights.bin" in out


def test_a_watched_import_that_is_cancelled_exits_with_1(shell: Shell, hub: FaultHub) -> None:
    hub.set(HALT)
    with shell.start("import", MODEL, "--to", "cancelled", "--create") as waiting:
        wait_for_line(waiting, "download")
        [task] = shell.json("task", "list", "--folder", "cancelled")
        assert shell.json("task", "cancel", task["id"])["status"] == "CANCELLED"
        _out, err = waiting.communicate()
    assert waiting.returncode == 1
    assert "was cancelled" in err
    assert shell.json("folder", "files", "cancelled") == []
    assert shell("task", "cancel", task["id"]).status == 0


def test_ctrl_c_leaves_the_import_running(shell: Shell, hub: FaultHub) -> None:
    hub.set(HALT)
    with shell.start("import", MODEL, "--to", "left", "--create") as waiting:
        wait_for_line(waiting, "download")
        waiting.send_signal(signal.SIGINT)
        _out, err = waiting.communicate()
    assert waiting.returncode == 130
    found = re.search(r"stowage task watch (\S+)", err)
    assert found
    assert shell.json("task", "show", found[1])["status"] == "RUNNING"
    hub.clear()
    assert shell.json("task", "watch", found[1])["status"] == "SUCCEEDED"


def test_a_wait_survives_a_restart_of_the_manager(shell: Shell, hub: FaultHub) -> None:
    hub.set(HALT)
    with shell.start("import", MODEL, "--to", "restarted", "--create") as waiting:
        wait_for_line(waiting, "download")
        shell.stack.kill("manager")
        hub.clear()
        out, err = waiting.communicate()
    assert (waiting.returncode, err) == (0, "")
    assert f"{MODEL}/main/weights.bin" in out


def test_a_terminal_shows_a_bar_and_a_pipe_shows_lines(shell: Shell) -> None:
    command = shell.command("import", MODEL, "--to", "shown", "--create")
    status, written = on_a_terminal(command)
    assert status == 0
    assert re.search(r"succeeded ━+ 100% +2\.0 MiB/2\.0 MiB +3/3 files", without_escapes(written))
    piped = shell("import", MODEL, "--to", "shown").out
    assert "━" not in piped
    assert "acme/halting@main: succeeded (2.0 MiB of 2.0 MiB, 3 of 3 files)" in piped.splitlines()


def test_a_file_of_ones_own_in_the_way_fails_the_import_with_status_1(shell: Shell) -> None:
    mine = place_of(shell, shell.json("folder", "create", "mine")["id"]) / "here" / "config.json"
    mine.parent.mkdir()
    mine.write_text("my own")
    done = shell("import", MODEL, "--to", "mine", "--path", "here")
    assert done.status == 1
    assert "DESTINATION_CONFLICT" in done.err
    assert mine.read_text() == "my own"
    done = shell("import", MODEL, "--to", "mine", "--path", "here", "--on-conflict", "overwrite")
    assert (done.status, mine.read_text()) == (0, "{}")


def test_folders_are_made_listed_and_looked_into(shell: Shell) -> None:
    made = shell.json("folder", "create", "made", "--mode", "data")
    assert (made["usageMode"], made["host"]) == ("DATA", "local:volume1")
    assert made["id"] in [folder["id"] for folder in shell.json("folder", "list", "--writable")]
    assert [folder["name"] for folder in shell.json("folder", "list", "--search", "mad")] == ["made"]
    shell("import", MODEL, "--to", made["id"], "--path", "/")
    paths = [file["path"] for file in shell.json("folder", "files", "made")]
    assert paths == ["config.json", "onnx/part.bin", "weights.bin"]
    flat = [file["path"] for file in shell.json("folder", "files", "made", "--flat", "--path", "onnx")]
    assert flat == ["onnx/part.bin"]


def place_of(shell: Shell, folder_id: str) -> Path:
    hexed = folder_id.replace("-", "")
    [place] = shell.stack.volume.glob(f"*/{hexed[:2]}/{hexed[2:4]}/{hexed[4:]}")
    return place


def test_a_cancelled_import_is_retried_where_it_was_to_go(shell: Shell, hub: FaultHub) -> None:
    hub.set(HALT)
    first = shell.json("import", MODEL, "--to", "retried", "--create", "--path", "x", "--no-wait")
    assert shell("task", "retry", first["id"]).status == 2
    shell.json("task", "cancel", first["id"])
    hub.clear()
    again = shell.json("task", "retry", first["id"])
    assert again["id"] != first["id"]
    assert (again["status"], again["path"]) == ("SUCCEEDED", "x")
    assert shell.json("task", "show", first["id"])["status"] == "CANCELLED"
    folder = again["destination"]["vfolder"]["id"]
    assert digest_tree(place_of(shell, folder) / "x") == digest_tree(hub.directory / MODEL)
    assert "succeeded" in shell("task", "retry", again["id"]).err


def test_a_deleted_folder_is_gone_with_its_files_and_no_other(shell: Shell, hub: FaultHub) -> None:
    kept = shell.json("import", f"{MODEL}@v1.0", "--to", "kept", "--create")["destination"]["vfolder"]["id"]
    gone = shell.json("folder", "create", "gone")["id"]
    hub.set(HALT)
    task = shell.json("import", MODEL, "--to", "gone", "--no-wait")
    refused = shell("folder", "delete", "gone", "--yes")
    assert (refused.status, task["id"] in refused.err) == (2, True)
    shell.json("task", "cancel", task["id"])
    place = place_of(shell, gone)
    assert shell("folder", "delete", "gone").status == 2
    assert place.is_dir()
    assert shell.json("folder", "delete", "gone", "--yes")["status"] == "DELETE_COMPLETE"
    assert not place.exists()
    assert gone not in {folder["id"] for folder in shell.json("folder", "list")}
    assert (place_of(shell, kept) / MODEL / "v1.0" / "config.json").read_bytes() == b"{}"
    assert shell.json("folder", "create", "gone")["id"] != gone


def test_a_user_is_made_let_in_and_put_out(shell: Shell) -> None:
    shell.json("user", "create", "ann@example.org")
    token = shell("token", "create", "laptop", "--user", "ann@example.org", "--expires", "1d").out.strip()

    def status(*arguments: str) -> int:
        return shell(*arguments, token=token).status

    assert status("folder", "list") == 0
    assert [status("user", "list"), status("token", "list", "--user", "admin@localhost")] == [3, 3]
    assert shell("user", "revoke", "ann@example.org").status == 0
    assert status("folder", "list") == 3
    shell("user", "restore", "ann@example.org")
    assert status("folder", "list") == 0
    [listed] = shell.json("token", "list", "--user", "ann@example.org")
    shell("token", "revoke", listed["id"])
    assert status("folder", "list") == 3
    assert shell.json("token", "list", "--user", "ann@example.org") == []
    last = shell("user", "revoke", "admin@localhost")
    assert (last.status, "last active administrator" in last.err) == (2, True)


def test_the_catalogue_shows_what_was_scanned_and_stored(shell: Shell) -> None:
    shell("scan", MODEL)
    shell("import", f"{MODEL}@v1.0")
    [listed] = shell.json("artifact", "list", "--search", "HALT", "--status", "available")
    assert (listed["name"], listed["revisions"], listed["available"]) == (MODEL, 2, 1)
    assert shell.json("artifact", "list", "--registry", "nowhere") == []
    revisions = {each["version"]: each for each in shell.json("artifact", "show", MODEL)["revisions"]}
    assert (revisions["main"]["status"], revisions["main"]["verificationResult"]) == ("SCANNED", None)
    assert (revisions["v1.0"]["status"], revisions["v1.0"]["size"]) == ("AVAILABLE", 2)
    assert "passed" in shell("artifact", "show", MODEL).out


def test_the_hosts_are_those_that_create_takes(shell: Shell) -> None:
    [host] = shell.json("folder", "hosts")
    assert shell("folder", "create", "on-a-host", "--host", host["host"]).status == 0
    wrong = shell("folder", "create", "on-no-host", "--host", "local:nowhere")
    assert wrong.status == 3
    assert "query" not in wrong.err


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["import", "acme/nothing", "--to", "errors"], 2, "SOURCE_NOT_FOUND"),
        (["import", f"{MODEL}@nothing", "--to", "errors"], 2, "SOURCE_NOT_FOUND"),
        (["import", MODEL, "--to", "nowhere"], 2, "--create makes it"),
        (["import", MODEL, "--to", "errors", "--path", "../x"], 2, "BAD_REQUEST, --path"),
        (["folder", "create", "../x"], 2, "BAD_REQUEST, name"),
        (["folder", "create", "errors"], 2, "CONFLICT"),
        (["task", "show", "nonsense"], 2, "BAD_REQUEST"),
        (["task", "cancel", NOBODY], 2, "NOT_FOUND"),
        (["task", "retry", NOBODY], 2, "NOT_FOUND"),
        (["folder", "delete", "nowhere", "--yes"], 2, "`stowage folder list` shows yours"),
        (["folder", "create", "x", "--host", "nowhere"], 2, "`stowage folder hosts` lists them"),
        (["token", "create", "x", "--expires", "2001-01-01"], 2, "BAD_REQUEST, --expires"),
        (["token", "revoke", NOBODY], 2, "NOT_FOUND"),
        (["user", "create", "nobody"], 2, "BAD_REQUEST, ADDRESS"),
        (["artifact", "show", "acme/nothing"], 2, "`stowage scan acme/nothing` takes it in"),
    ],
)
def test_wrong_input_exits_with_2_and_names_the_fault(
    shell: Shell, arguments: list[str], status: int, said: str
) -> None:
    shell("folder", "create", "errors")
    done = shell(*arguments)
    assert done.status == status
    assert said in done.err
    assert done.out == ""


def test_a_wrong_token_exits_with_3(shell: Shell) -> None:
    done = shell("folder", "list", token="stw_wrong")
    assert done.status == 3
    assert "UNAUTHENTICATED" in done.err


def test_a_user_sees_ones_own_and_may_not_scan(shell: Shell) -> None:
    user = shell.stack.graphql('mutation { createUser(input: {email: "u@localhost"}) { user { id } } }')
    user_id = user["createUser"]["user"]["id"]
    made = shell.stack.graphql(
        'mutation($id: ID!) { createToken(input: {userId: $id, name: "t"}) { token } }', {"id": user_id}
    )
    token = made["createToken"]["token"]
    assert shell.json("folder", "list", token=token) == []
    refused = shell("import", "acme/unknown", "--to", "u", "--create", token=token)
    assert refused.status == 3
    assert "ask one for `stowage scan acme/unknown@main`" in refused.err
    shell("scan", MODEL)
    done = shell.json("import", MODEL, "--to", "u", "--create", token=token)
    assert done["requestedBy"]["email"] == "u@localhost"
    assert shell("import", MODEL, "--to", "walk", token=token).status == 2


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    assert re.fullmatch(r"stowage \d+\.\d+\.\d+\S*\n", shell("version").out)
