"""`stowage verify` as people and programs use it: no configuration, no stack."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.verifiers.samples_pickles import Harm, harmless


def verify(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stowage", "verify", str(path), *options]
    environment = {"PATH": os.environ["PATH"], "STOWAGE_DATA_DIR": "/nowhere"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "README.md").write_text("A model.\n")
    (tmp_path / "model" / "sub" / "state.bin").write_bytes(harmless()["torch tensor"])
    return tmp_path / "model"


def test_a_clean_directory(model: Path) -> None:
    done = verify(model)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("clean  2 files, ")
    assert "integrity" not in done.stdout


def test_a_blocked_file_among_others_in_json(model: Path) -> None:
    (model / "sub" / "notes.json").write_bytes(pickle.dumps(Harm()))
    done = verify(model, "--json")
    told = json.loads(done.stdout)

    assert (done.returncode, told["verdict"], told["files"]) == (1, "blocked", 3)
    found = {entry["name"]: entry for entry in told["verifiers"]}
    assert [finding["file"] for finding in found["pickle"]["findings"]] == ["sub/notes.json"]
    assert found["pickle"]["scanned"] == 3


def test_a_finding_stands_in_the_table(model: Path) -> None:
    (model / "bad\x1b.pkl").write_bytes(pickle.dumps(Harm()))
    out = verify(model).stdout

    assert "the pickle calls posix.getpid, which is not on the allow-list" in out
    assert "bad\\x1b.pkl" in out


def test_a_flagged_file(tmp_path: Path) -> None:
    (tmp_path / "odd.txt").write_bytes(b"cos\nsystem\n")

    assert verify(tmp_path / "odd.txt").returncode == 2


def test_what_cannot_be_opened_is_incomplete_and_nothing_waits(model: Path) -> None:
    os.mkfifo(model / "pipe")
    (model / "dangling").symlink_to("nowhere")
    done = verify(model)

    assert done.returncode == 3
    assert "2 not looked at: " in done.stdout


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_file_at_all_is_incomplete(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    done = verify(tmp_path / name)

    assert done.returncode == 3
    assert done.stderr == f"{tmp_path / name}: there is no file.\n"
