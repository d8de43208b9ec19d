import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy_client.errors import BadRequest
from stowage.hub.app import create_app
from stowage.hub.server import check_layout
from tests.faults.hub import FaultHub
from tests.faults.models import make_model


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultHub]:
    with FaultHub(tmp_path) as running:
        yield running


def ask(hub: FaultHub, path: str) -> httpx.Response:
    return httpx.get(f"{hub.url}{path}", trust_env=False)


def names(hub: FaultHub, revision: str) -> list[str]:
    answer = ask(hub, f"/api/models/org/model/tree/{revision}?recursive=true")
    return [entry["path"] for entry in answer.json() if entry["type"] == "file"]


def write_manifest(directory: Path, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (directory / "org/model/.hub.json").write_text(text)


def test_plain_files_are_main_and_at_folders_are_branches(hub: FaultHub) -> None:
    make_model(hub.directory, "org/model", {"on main": b"1"})
    make_model(hub.directory, "org/model", {"on fp16": b"2"}, branch="fp16")
    assert (names(hub, "main"), names(hub, "fp16")) == (["on main"], ["on fp16"])


def test_main_may_be_an_at_folder_too(hub: FaultHub) -> None:
    make_model(hub.directory, "org/model", {"on main": b"1"}, branch="main")
    assert names(hub, "main") == ["on main"]
    make_model(hub.directory, "org/model", {"beside": b"1"})
    answer = ask(hub, "/api/models/org/model")
    assert (answer.status_code, answer.headers["x-error-code"]) == (422, "InvalidLayout")
    assert "keep one of them" in answer.json()["error"]


def test_a_manifest_names_folders_for_refs(hub: FaultHub) -> None:
    make_model(hub.directory, "org/model", {"kept": b"0", "old/a": b"1", "new/weights/b": b"2", "@x/c": b"3"})
    write_manifest(hub.directory, {"branches": {"main": ".", "next": "new/weights"}, "tags": {"v0/1": "old"}})
    assert [names(hub, revision) for revision in ("main", "next", "v0%2F1")] == [["kept"], ["b"], ["a"]]
    refs = ask(hub, "/api/models/org/model/refs").json()
    assert [ref["name"] for ref in refs["branches"]] == ["main", "next"]
    assert [ref["ref"] for ref in refs["tags"]] == ["refs/tags/v0/1"]


def test_a_manifest_holds_figures(hub: FaultHub) -> None:
    make_model(hub.directory, "org/model", {"a": b""})
    write_manifest(hub.directory, {"downloads": 7, "likes": 3, "labels": ["x"], "description": "small"})
    info = ask(hub, "/api/models/org/model").json()
    assert [info[name] for name in ("downloads", "likes", "tags", "description")] == [7, 3, ["x"], "small"]


def test_a_model_without_files_is_one(hub: FaultHub) -> None:
    (hub.directory / "org/model").mkdir(parents=True)
    assert ask(hub, "/api/models/org/model").json()["siblings"] == []
    assert ask(hub, "/api/models/org/model/tree/main").json() == []


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("{", "the file: Invalid JSON"),
        ({"downlods": 1}, "downlods: Extra inputs"),
        ({"downloads": -1}, "downloads: "),
        ({"branches": {"dev": "."}}, "branches holds no 'main'; add it"),
        ({"branches": {"main": "../other"}}, "no relative folder"),
        ({"branches": {"main": "/etc"}}, "no relative folder"),
        ({"branches": {"main": "gone"}}, "there is no folder 'gone'"),
        ({"branches": {"main": "link"}}, "there is no folder 'link'"),
        ({"tags": {"a b": "."}}, "is no name of a branch or tag"),
        ({"tags": {"0" * 40: "."}}, "looks like a commit"),
        ({"branches": {"main": "."}, "tags": {"main": "."}}, "is a branch and a tag"),
    ],
)
def test_a_wrong_manifest_is_told_and_harms_no_other_model(hub: FaultHub, manifest: Any, said: str) -> None:
    make_model(hub.directory, "org/model", {"a": b""})
    make_model(hub.directory, "org/good", {"a": b""})
    (hub.directory / "org/model/link").symlink_to(hub.directory)
    write_manifest(hub.directory, manifest)
    answer = ask(hub, "/api/models/org/model")
    assert (answer.status_code, answer.headers["x-error-code"]) == (422, "InvalidLayout")
    assert said in answer.json()["error"]
    assert str(hub.directory) not in answer.text
    assert [model["id"] for model in ask(hub, "/api/models").json()] == ["org/good"]
    with pytest.raises(BadRequest, match=r"org/model/\.hub\.json: "):
        check_layout(hub.directory)
    (hub.directory / "org/model/.hub.json").unlink()
    assert ask(hub, "/api/models/org/model").status_code == 200


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="is no directory"):
        create_app(tmp_path / "none")


def test_a_model_without_a_file_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "org" / "empty" / ".cache").mkdir(parents=True)
    (tmp_path / "org" / "full" / "weights").mkdir(parents=True)
    (tmp_path / "org" / "full" / "weights" / "w.bin").write_bytes(b"w")

    assert check_layout(tmp_path) == 2
    assert capsys.readouterr().err.count("Warning: org/empty holds no file") == 1
