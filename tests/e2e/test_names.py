"""Names come from a registry: they are taken byte for byte, or refused; never repaired, never followed."""

import json
import os
import unicodedata
from typing import Any

import pytest

from tests.e2e.world import Files, Folder, Model, World, tree
from tests.faults.hub import Rule

FILES: Files = {"weights.bin": 2_000, "config.json": b"{}"}
HANGUL = unicodedata.normalize("NFD", "모델")
BLOB = {"type": "file", "oid": "a" * 40, "size": 3}


def list_instead(world: World, model: Model, *paths: str) -> None:
    """Let the hub list these names, and hand out bytes for whatever is asked for."""
    listing = [{**BLOB, "path": path} for path in paths]
    world.hub.set(
        Rule(path=f"{model.id}/tree/", status=200, body=json.dumps(listing).encode()),
        Rule(path=f"{model.id}/resolve/", serve=b"bad"),
    )


def arrived(folder: Folder, model: Model) -> dict[bytes, int]:
    """Return names, as bytes, and sizes of what lies in the filled directory."""
    root = folder.path / model.id / "main"
    files = (path for path in root.rglob("*") if path.is_file() and ".stowage" not in path.parts)
    return {os.fsencode(path.relative_to(root)): path.stat().st_size for path in files}


@pytest.mark.parametrize(
    "name",
    [
        f"{HANGUL}.bin",
        f"{HANGUL}/{HANGUL}.json",
        "äöü/naïve café.txt",
        "emoji 🦙.bin",
        "a+b%20c#d?e&f=g;h@i.bin",
        'it\'s "quoted" & $HOME `x` |.txt',
        "-rf",
        ".gitattributes",
        "con.txt",
        "x" * 255,
        "/".join(["d"] * 60) + "/deep.bin",
    ],
    ids=lambda name: ascii(name)[:24],
)
def test_an_unusual_name_arrives_byte_for_byte(world: World, name: str) -> None:
    model, folder = world.model({name: b"content", "config.json": b"{}"}), world.folder()

    task = world.bring(model, folder)

    assert (task["status"], task["error"]) == ("SUCCEEDED", None)
    assert arrived(folder, model) == {name.encode(): 7, b"config.json": 2}
    assert folder.digests(f"{model.id}/main") == model.digests


def test_graphql_shows_a_name_as_it_lies_on_disk(world: World) -> None:
    model, folder = world.model({f"{HANGUL}.bin": b"content"}), world.folder()
    world.bring(model, folder, path="/")

    listed = world.stack.graphql(
        "query ($id: ID!) { vfolderFiles(vfolderId: $id) { path } }", {"id": folder.id}
    )["vfolderFiles"]

    assert [entry["path"] for entry in listed] == [".stowage", f"{HANGUL}.bin"]


def test_empty_files_arrive(world: World) -> None:
    model, folder = (
        world.model({"empty.bin": b"", "empty.json": b"", "nested/empty.txt": b""}),
        world.folder(),
    )

    task = world.bring(model, folder)

    assert (task["status"], task["filesDone"], task["bytesTotal"]) == ("SUCCEEDED", 3, "0")
    assert folder.digests(f"{model.id}/main") == model.digests


def test_many_small_files_arrive(world: World) -> None:
    files: Files = {f"{number % 7}/{number}.json": b"%d" % number for number in range(300)}
    model, folder = world.model(files), world.folder()

    task = world.bring(model, folder)

    assert (task["status"], task["filesTotal"]) == ("SUCCEEDED", 300)
    assert folder.digests(f"{model.id}/main") == model.digests


HOSTILE: dict[str, list[str]] = {
    "parent": ["../escape.bin"],
    "parent within": ["a/../../../escape.bin"],
    "parent alone": [".."],
    "dot": ["./escape.bin"],
    "absolute": ["/escape.bin"],
    "backslash": ["..\\escape.bin"],
    "empty component": ["a//escape.bin"],
    "trailing slash": ["escape.bin/"],
    "empty": [""],
    "NUL": ["escape\0.bin"],
    "line break": ["escape\n.bin"],
    "escape sequence": ["\x1b[2Jescape.bin"],
    "right to left": ["escape\u202egnp.exe"],
    "zero width": ["esc\u200bape.bin"],
    "line separator": ["esc\u2028ape.bin"],
    "private use": ["escape\ue000.bin"],
    "leading space": [" escape.bin"],
    "trailing space": ["escape.bin "],
    "manifest": [".stowage/escape.json"],
    "manifest in capitals": [".STOWAGE/escape.json"],
    "manifest within": ["a/.stowage/escape.json"],
    "staging": [".staging/escape.bin"],
    "too long": ["x" * 256],
    "too long in bytes": ["é" * 128],
    "too deep": ["/".join(["d"] * 65)],
    "longer than a path": ["/".join(["x" * 200] * 20) + "/escape.bin"],
    "twice": ["escape.bin", "escape.bin"],
    "case collision": ["escape.bin", "Escape.bin"],
    "case collision of folders": ["a/one.bin", "A/two.bin"],
    "composition collision": [f"{HANGUL}.bin", f"{unicodedata.normalize('NFC', HANGUL)}.bin"],
    "file and folder": ["escape", "escape/inner.bin"],
}


@pytest.mark.parametrize("paths", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_name_is_refused_before_any_byte(world: World, paths: list[str]) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)
    world.hub.forget()
    list_instead(world, model, "config.json", *paths)
    before = everything(world)

    (task_id,) = world.order([revision["id"]], folder)
    task = world.finished(str(task_id))

    assert (task["status"], task["error"]["code"]) == ("FAILED", "PATH_REFUSED")
    assert task["error"]["message"].isprintable()
    assert world.hub.downloads(model.id) == []
    assert everything(world) == before
    world.insist_on_nothing_left(task, folder)


@pytest.mark.parametrize("paths", [["../escape.bin"], [".stowage/escape.json"]], ids=["parent", "manifest"])
def test_a_hostile_name_does_not_reach_the_artifact_storage(world: World, paths: list[str]) -> None:
    model = world.model(FILES)
    revision = world.scan(model)
    list_instead(world, model, *paths)
    before = everything(world)

    (task_id,) = world.order([revision["id"]])
    task = world.finished(str(task_id))

    assert (task["status"], task["error"]["code"]) == ("FAILED", "PATH_REFUSED")
    assert everything(world) == before


def test_a_name_that_is_no_unicode_is_no_answer_of_a_hub(world: World) -> None:
    model, folder = world.model(FILES), world.folder()
    revision = world.scan(model)
    listing = json.dumps([{**BLOB, "path": "lone \ud800 surrogate"}]).encode()
    world.hub.set(Rule(path=f"{model.id}/tree/", status=200, body=listing))

    (task_id,) = world.order([revision["id"]], folder)
    task = world.finished(str(task_id))

    assert (task["status"], task["error"]["code"]) == ("FAILED", "SOURCE_INVALID")
    assert folder.everything() == {}


def everything(world: World) -> dict[str, Any]:
    """Return every name beneath the directory of volumes and of artifact storages, staging aside."""
    roots = [world.stack.volume.parent, *world.storages()]
    return {
        f"{root.name}/{name}": content
        for root in roots
        for name, content in tree(root).items()
        if ".staging" not in name.split("/")
    }
