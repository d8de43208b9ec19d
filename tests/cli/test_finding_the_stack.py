"""Which manager a command speaks to, with which token, and what it says when that fails."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.stand_in import TOKEN, Outcome, StandIn

Run = Callable[..., Outcome]


@pytest.fixture
def data_dir(manager: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of an embedded stack, whose manager the stand-in is."""
    monkeypatch.delenv("STOWAGE_URL")
    monkeypatch.delenv("STOWAGE_TOKEN")
    monkeypatch.setenv("STOWAGE_DATA_DIR", str(tmp_path))
    (tmp_path / "stack.json").write_text(json.dumps({"url": manager.url, "pid": 1}))
    (tmp_path / "admin-token").write_text(f"{TOKEN}\n")
    return tmp_path


def test_the_stack_of_the_data_dir_is_found(data_dir: Path, stowage: Run) -> None:
    assert stowage("folder", "list").status == 0


def test_the_stack_of_the_default_directory_is_found(
    data_dir: Path, stowage: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STOWAGE_DATA_DIR")
    monkeypatch.setenv("XDG_DATA_HOME", str(data_dir / "home"))
    (data_dir / "home").mkdir()
    (data_dir / "home" / "stowage").symlink_to(data_dir)
    assert stowage("folder", "list").status == 0


def test_a_token_of_the_environment_goes_before_the_administrators(
    data_dir: Path, stowage: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAGE_TOKEN", "stw_of-nobody")
    outcome = stowage("folder", "list")
    assert outcome.status == 3
    assert "the token came from STOWAGE_TOKEN" in outcome.err


def test_the_administrators_token_is_never_sent_to_another_manager(
    data_dir: Path, manager: StandIn, stowage: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAGE_URL", manager.url)
    outcome = stowage("folder", "list")
    assert outcome.status == 3
    assert "set STOWAGE_TOKEN" in outcome.err
    assert manager.asked == []


@pytest.mark.parametrize("path", ["", "/", "/graphql"])
def test_the_url_may_end_in_the_path_of_graphql(
    manager: StandIn, stowage: Run, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("STOWAGE_URL", manager.url + path)
    assert stowage("folder", "list").status == 0


def test_without_a_stack_a_command_says_how_to_start_one(
    stowage: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAGE_DATA_DIR", str(tmp_path / "my models"))
    outcome = stowage("task", "list")
    assert outcome.status == 3
    assert f"`stowage up --data-dir '{tmp_path}/my models'`" in outcome.err


def test_a_stack_that_went_down_is_named_with_the_way_to_start_it(
    data_dir: Path, manager: StandIn, stowage: Run
) -> None:
    manager.close()
    outcome = stowage("folder", "list")
    assert outcome.status == 3
    assert f"no Stowage answers at {manager.url}" in outcome.err
    assert f"`stowage up --data-dir {data_dir}`" in outcome.err


def test_a_stack_without_a_token_yet_is_waited_for(data_dir: Path, stowage: Run) -> None:
    (data_dir / "admin-token").unlink()
    outcome = stowage("folder", "list")
    assert outcome.status == 3
    assert "admin-token yet" in outcome.err


def test_a_stack_that_is_starting_is_no_reason_to_start_another(
    data_dir: Path, manager: StandIn, stowage: Run
) -> None:
    manager.close()
    with subprocess.Popen([sys.executable, "-c", "input()", "stowage"], stdin=subprocess.PIPE) as supervisor:
        (data_dir / "stack.json").write_text(json.dumps({"url": manager.url, "pid": supervisor.pid}))
        without_answer = stowage("folder", "list")
        (data_dir / "admin-token").unlink()
        without_token = stowage("folder", "list")

    assert (without_answer.status, without_token.status) == (3, 3)
    assert f"Stowage is starting (process {supervisor.pid}); try again in a moment" in without_answer.err
    assert "stowage up" not in without_answer.err
    assert without_token.err == without_answer.err


@pytest.mark.parametrize("content", ["", "[]", '{"pid": 1}', "{"])
def test_a_broken_state_file_is_named(data_dir: Path, stowage: Run, content: str) -> None:
    (data_dir / "stack.json").write_text(content)
    outcome = stowage("folder", "list")
    assert outcome.status == 3
    assert "stack.json" in outcome.err


def test_an_environments_proxy_does_not_stand_before_the_stack_here(
    data_dir: Path, stowage: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert stowage("folder", "list").status == 0


def test_a_manager_that_cannot_be_reached_is_named(manager: StandIn, stowage: Run) -> None:
    manager.close()
    outcome = stowage("folder", "list")
    assert outcome.status == 3
    assert f"{manager.url} cannot be reached (Connection refused); check STOWAGE_URL" in outcome.err


def test_a_token_that_is_refused_is_named_by_its_source(
    manager: StandIn, stowage: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWAGE_TOKEN", "stw_of-nobody")
    outcome = stowage("folder", "list")
    assert outcome.status == 3
    assert outcome.err == "Error: the token is unknown; the token came from STOWAGE_TOKEN (UNAUTHENTICATED)\n"


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "schlüssel"])
def test_what_cannot_be_a_token_is_not_sent(
    manager: StandIn, stowage: Run, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("STOWAGE_TOKEN", token)
    outcome = stowage("folder", "list")
    assert outcome.status == 3
    assert "STOWAGE_TOKEN" in outcome.err
    assert token not in outcome.err


@pytest.mark.parametrize(
    "url", ["localhost:8765", "ftp://localhost", "http://", "http://me:secret@localhost", "http://a:b:c"]
)
def test_what_is_no_address_names_the_variable(
    stowage: Run, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("STOWAGE_URL", url)
    monkeypatch.setenv("STOWAGE_TOKEN", TOKEN)
    outcome = stowage("folder", "list")
    assert outcome.status == 2
    assert "STOWAGE_URL" in outcome.err
    assert "secret" not in outcome.err


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, "<html>a router</html>"),
        (200, "[]"),
        (200, "{}"),
        (404, "not here"),
        (302, ""),
        (502, "bad gateway"),
    ],
)
def test_an_answer_that_is_no_graphql_is_an_error(
    manager: StandIn, stowage: Run, status: int, body: str
) -> None:
    manager.raw = [(status, body)]
    outcome = stowage("folder", "list")
    assert outcome.status == 3
    assert f"status {status}" in outcome.err


@pytest.mark.parametrize("errors", ['"no list"', "[1]", "[{}]", '[{"message": "m", "extensions": 1}]'])
def test_errors_that_cannot_be_read_are_an_error(manager: StandIn, stowage: Run, errors: str) -> None:
    manager.raw = [(200, f'{{"errors": {errors}}}')]
    assert stowage("folder", "list").status == 3


def test_a_code_that_is_not_known_is_shown_as_it_came(manager: StandIn, stowage: Run) -> None:
    manager.refuse("vfolders", "OUT_OF_TAPE", "the robot has no arm")
    outcome = stowage("folder", "list")
    assert outcome.status == 1
    assert "the robot has no arm [OUT_OF_TAPE]" in outcome.err
