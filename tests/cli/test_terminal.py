"""The command as a process of its own: on a terminal, in a pipe, interrupted."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.stand_in import TASK_ID, StandIn, file, steps, task, vfolder
from tests.cli.terminal import on_a_terminal, without_escapes

STOWAGE = [sys.executable, "-m", "stowage"]
IMPORT = [*STOWAGE, "import", "sample/tiny-bert", "--to", "models"]


def test_a_terminal_gets_a_bar_with_rate_remaining_time_step_and_files(manager: StandIn) -> None:
    running = task("RUNNING", step="DOWNLOAD", done=50)
    manager.answers["importTask"] = steps(*[running] * 4, task("SUCCEEDED"))
    status, written = on_a_terminal(IMPORT)
    assert status == 0
    text = without_escapes(written)
    assert re.search(r"download ━+.* 50% +50 B/100 B +25 B/s +2\.0 s left +1/2 files", text)
    assert re.search(r"succeeded ━+ 100% +100 B/100 B +2/2 files", text)
    assert "sample/tiny-bert@main: download" not in text


def test_a_bar_fits_a_narrow_terminal(manager: StandIn) -> None:
    large = {"bytesTotal": str(70 << 30), "bytesDone": str(35 << 30), "bytesPerSecond": 25.5 * (1 << 20)}
    running = task("RUNNING", step="DOWNLOAD", filesTotal=1234, filesDone=567) | large
    manager.answers["importTask"] = steps(*[running] * 4, task("SUCCEEDED"))
    _status, written = on_a_terminal(IMPORT, columns=80)
    bars = [line for line in re.split(r"[\r\n]+", without_escapes(written)) if line.startswith("download")]
    assert bars
    assert max(map(len, bars)) <= 80
    assert any("567/1234 files" in line for line in bars)


def test_no_color_is_honoured(manager: StandIn) -> None:
    colors = re.compile(r"\x1b\[[0-9;]*3[0-9](;|m)")
    _status, written = on_a_terminal(IMPORT)
    assert colors.search(written)
    _status, written = on_a_terminal(IMPORT, NO_COLOR="1")
    assert not colors.search(written)
    _status, written = on_a_terminal([*STOWAGE, "folder", "list"], NO_COLOR="1")
    assert "NAME" in written
    assert "\x1b" not in written


def test_a_narrow_terminal_gets_fewer_columns(manager: StandIn) -> None:
    manager.answers["importTask"] = steps(*[task("RUNNING", step="DOWNLOAD", done=50)] * 4, task("SUCCEEDED"))
    _status, written = on_a_terminal(IMPORT, columns=60)
    lines = re.split(r"[\r\n]+", without_escapes(written))
    bars = [line for line in lines if line.startswith("download")]
    assert bars
    assert max(map(len, bars)) <= 60
    assert any("50 B/100 B" in line for line in bars)
    _status, written = on_a_terminal([*STOWAGE, "folder", "list"], columns=60)
    title, *rows = without_escapes(written).splitlines()
    assert title.split() == ["NAME", "ID", "STATUS"]
    assert max(map(len, rows)) <= 60


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(manager: StandIn) -> None:
    _status, written = on_a_terminal(IMPORT, TERM="dumb")
    assert "\x1b" not in written
    assert "sample/tiny-bert@main: succeeded" in written


def test_a_pipe_gets_no_escape_even_by_force(manager: StandIn) -> None:
    forced = os.environ | {"FORCE_COLOR": "1"}
    done = subprocess.run(IMPORT, capture_output=True, text=True, env=forced, check=True)
    assert "\x1b" not in done.stdout + done.stderr
    assert "sample/tiny-bert@main: succeeded" in done.stdout


def test_ctrl_c_leaves_the_import_running_and_says_how_to_come_back(manager: StandIn) -> None:
    manager.answers["importTask"] = task("RUNNING", step="DOWNLOAD", done=50)
    with subprocess.Popen(IMPORT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if ": download" in line:
                break
        process.send_signal(signal.SIGINT)
        _out, err = process.communicate()
    assert process.returncode == 130
    assert f"stowage task watch {TASK_ID}" in err
    assert f"stowage task cancel {TASK_ID}" in err
    assert "Traceback" not in err
    assert manager.arguments("cancelImportTask") == []


def test_a_reader_that_goes_away_is_no_traceback(manager: StandIn) -> None:
    manager.answers["vfolderFiles"] = [
        file(f"{'long' * 50}{number}", 1) for number in range(2_000)
    ]  # more than a pipe holds
    command = [*STOWAGE, "folder", "files", "models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_a_name_that_the_encoding_cannot_write_is_escaped(manager: StandIn) -> None:
    manager.answers["vfolderFiles"] = [file("모델.bin", 1)]
    done = subprocess.run(
        [*STOWAGE, "folder", "files", "models"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert rb"\ubaa8\ub378.bin" in done.stdout


def test_the_exit_status_of_the_process_tells(manager: StandIn) -> None:
    manager.answers["importTask"] = task("FAILED")
    assert subprocess.run(IMPORT, capture_output=True, check=False).returncode == 1
    assert subprocess.run([*STOWAGE, "impart"], capture_output=True, check=False).returncode == 2
    unreachable = os.environ | {"STOWAGE_URL": "http://127.0.0.1:1"}
    assert subprocess.run(IMPORT, capture_output=True, env=unreachable, check=False).returncode == 3


def test_no_command_loads_what_it_does_not_need() -> None:
    script = """if True:
        import sys
        from stowage.cli import main
        for arguments in (["version"], ["import", "sample/tiny-bert", "--to", "models"]):
            main(arguments)
            print(*sys.modules)
        """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    version, told, asked = done.stdout.splitlines()
    assert re.fullmatch(r"stowage \d+\.\d+\.\d+\S*", version)
    assert not {"httpx", "rich", "stowage.stack", "asyncio"} & set(told.split())
    assert not {"asyncpg", "stowage.stack", "proxy_client.wire", "asyncio"} & set(asked.split())


def test_json_on_stdout_leaves_the_bar_to_a_terminal_on_stderr(manager: StandIn, tmp_path: Path) -> None:
    document = tmp_path / "task.json"
    status, written = on_a_terminal(["sh", "-c", f'exec "$@" > {document}', "sh", *IMPORT, "--json"])
    assert status == 0
    assert "succeeded" in written
    assert json.loads(document.read_text())["status"] == "SUCCEEDED"


@pytest.mark.parametrize(("typed", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_folder_delete_asks_on_a_terminal(manager: StandIn, typed: str, status: int) -> None:
    usage = {"usedBytes": "2048", "fileCount": 2, "limitBytes": None}
    manager.answers["vfolder"] = vfolder() | {"usage": usage}
    manager.answers["deleteVfolder"] = {"vfolder": vfolder() | {"status": "DELETE_COMPLETE"}}
    found, written = on_a_terminal([*STOWAGE, "folder", "delete", "models"], typed=typed)
    assert found == status
    assert "Delete folder models on local:volume1 (2 files, 2.0 KiB)?" in written
    assert len(manager.arguments("deleteVfolder")) == (status == 0)
