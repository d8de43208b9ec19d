"""Completion as shells ask for it, and in a real bash."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stowage.cli import main
from tests.cli.stand_in import TASK_ID, StandIn, connection, task, vfolder

BASH = shutil.which("bash") or pytest.skip("there is no bash", allow_module_level=True)
SHELLS = ["bash", "zsh", "fish"]
PLACES = {
    "bash": ".bash_completions/stowage.sh",
    "zsh": ".zfunc/_stowage",
    "fish": ".config/fish/completions/stowage.fish",
}
Completed = Callable[[str, str], str]


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a script in a shell that is called `name`, with `stowage` on its path and a home of its own."""
    tools = tmp_path / "bin"
    tools.mkdir()
    command = tools / "stowage"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stowage "$@"\n')
    command.chmod(0o755)
    for name in SHELLS:
        shutil.copy(BASH, tools / name)

    def run(script: str, name: str = "bash", **environment: str) -> "subprocess.CompletedProcess[str]":
        # The shell is told by its process; the last colon keeps it from becoming the command itself.
        return subprocess.run(
            [tools / name, "-c", f"{script}\n:"],
            env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def asked_by(kind: str, line: str) -> dict[str, str]:
    """The environment by which a shell asks what may follow."""
    words = line.split(" ")
    return {
        "_STOWAGE_COMPLETE": f"complete_{kind}",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


@pytest.fixture
def completed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Completed:
    """Ask what may follow, and return what the shell is told."""

    def run(kind: str, line: str) -> str:
        for name, value in asked_by(kind, line).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main(())
        told = capsys.readouterr()
        assert (ended.value.code, told.err) == (0, "")
        return told.out

    return run


@pytest.mark.parametrize("kind", SHELLS)
def test_each_shell_is_told_the_commands(completed: Completed, kind: str) -> None:
    assert "folder" in completed(kind, "stowage fo")
    told = completed(kind, "stowage folder de")
    assert "delete" in told
    assert "create" not in told
    assert "--create" in completed(kind, "stowage import a/b --cr")


@pytest.mark.parametrize("kind", SHELLS)
def test_folders_and_tasks_are_asked_of_the_manager(
    manager: StandIn, completed: Completed, kind: str
) -> None:
    manager.answers["vfolders"] = connection([vfolder("models"), vfolder("more"), vfolder("data-mo")])
    told = completed(kind, "stowage folder files mo")
    assert "models" in told
    assert "data-mo" not in told
    assert "more" in completed(kind, "stowage import a/b --to mo")
    manager.answers["importTasks"] = connection([task("RUNNING")])
    assert TASK_ID in completed(kind, f"stowage task cancel {TASK_ID[:4]}")


def test_without_a_manager_nothing_is_completed_and_nothing_said(completed: Completed) -> None:
    assert completed("bash", "stowage folder files mo").strip() == ""


@pytest.mark.parametrize("name", SHELLS)
def test_the_script_of_ones_own_shell_is_shown(
    shell: Callable[..., "subprocess.CompletedProcess[str]"], name: str
) -> None:
    done = shell("stowage --show-completion", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_STOWAGE_COMPLETE=complete_{name}" in done.stdout


@pytest.mark.parametrize("name", SHELLS)
def test_completion_is_installed_for_ones_own_shell(
    shell: Callable[..., "subprocess.CompletedProcess[str]"], tmp_path: Path, name: str
) -> None:
    done = shell("stowage --install-completion", name)
    assert done.returncode == 0, done.stderr
    assert f"{name} completion installed" in done.stdout
    assert f"_STOWAGE_COMPLETE=complete_{name}" in (tmp_path / PLACES[name]).read_text()


def test_a_bash_completes_by_the_script_that_it_was_given(
    shell: Callable[..., "subprocess.CompletedProcess[str]"],
) -> None:
    done = shell(
        """
        eval "$(stowage --show-completion; :)"
        complete -p stowage
        COMP_WORDS=(stowage token re) COMP_CWORD=2
        _stowage_completion stowage
        echo "found ${COMPREPLY[*]}"
        """
    )
    assert "-F _stowage_completion stowage" in done.stdout
    assert "found revoke" in done.stdout
