import hashlib
import os
import subprocess
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.hub import FaultHub
from tests.faults.models import make_model, seeded

SIZE = 1_500_000
WEIGHTS = seeded("org/model@main:w.bin", SIZE)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultHub]:
    files: dict[str, bytes | int] = {
        "w.bin": SIZE,
        "README.md": b"# hello",
        "empty": b"",
        "sub/deep/x.txt": b"x",
        ".gitattributes": b"",
    }
    make_model(tmp_path, "org/model", files)
    with FaultHub(tmp_path) as running:
        yield running


@pytest.fixture
def client(hub: FaultHub) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=hub.url, trust_env=False) as opened:
        yield opened


def get_file(
    client: httpx.Client, path: str = "w.bin", revision: str = "main", **headers: str
) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get(f"/org/model/resolve/{revision}/{path}", headers=named)


def commit_of(client: httpx.Client, revision: str = "main") -> str:
    return str(client.get(f"/api/models/org/model/revision/{revision}").json()["sha"])


# Files.


def test_a_head_tells_all_without_the_body(client: httpx.Client) -> None:
    answer = client.head("/org/model/resolve/main/w.bin")
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert answer.headers["content-length"] == answer.headers["x-linked-size"] == str(SIZE)
    assert answer.headers["etag"] == answer.headers["x-linked-etag"] == f'"{sha256}"'
    assert answer.headers["x-repo-commit"] == commit_of(client)
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.content == b""


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-", 0, SIZE),
        ("bytes=0-0", 0, 1),
        ("bytes=1048570-1048580", 1048570, 1048581),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=-5", SIZE - 5, SIZE),
        (f"bytes=-{SIZE * 2}", 0, SIZE),
        (f"bytes=10-{SIZE * 2}", 10, SIZE),
    ],
)
def test_a_range_is_answered_with_its_bytes(client: httpx.Client, asked: str, start: int, end: int) -> None:
    answer = get_file(client, Range=asked)
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.content == WEIGHTS[start:end]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0", "bytes=99999999999-"])
def test_a_range_outside_is_not_satisfiable(client: httpx.Client, asked: str) -> None:
    answer = get_file(client, Range=asked)
    assert (answer.status_code, answer.content) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize(
    "asked", ["bytes=", "bytes=-", "bytes=5-1", "bytes=0-1,4-5", "items=0-1", "bytes=x-"]
)
def test_a_range_that_says_nothing_gets_the_whole_file(client: httpx.Client, asked: str) -> None:
    answer = get_file(client, Range=asked)
    assert (answer.status_code, answer.content) == (200, WEIGHTS)


def test_a_range_of_another_content_gets_the_whole_file(client: httpx.Client) -> None:
    etag = get_file(client).headers["etag"]
    assert get_file(client, Range="bytes=5-", If_Range=etag).status_code == 206
    assert get_file(client, Range="bytes=5-", If_Range='"other"').content == WEIGHTS


def test_a_file_that_the_client_has_is_not_sent(client: httpx.Client) -> None:
    etag = get_file(client).headers["etag"]
    for condition in (etag, f'"other", W/{etag}', "*"):
        answer = get_file(client, If_None_Match=condition)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    assert get_file(client, If_None_Match='"other"').status_code == 200


def test_an_empty_file_is_sent(client: httpx.Client) -> None:
    answer = get_file(client, "empty")
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")
    assert get_file(client, "empty", Range="bytes=0-").status_code == 416


def test_raw_is_what_git_holds(client: httpx.Client) -> None:
    sha256 = hashlib.sha256(WEIGHTS).hexdigest()
    assert client.get("/org/model/raw/main/README.md").content == b"# hello"
    pointer = client.get("/org/model/raw/main/w.bin").text
    assert pointer == f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {SIZE}\n"


@pytest.mark.parametrize(
    ("name", "content", "lfs"),
    [
        ("small.bin", b"no NUL in it", False),
        ("small.bin", b"a\0b", True),
        ("late.bin", b"a" * 8000 + b"\0", False),
        ("edge.bin", b"a" * (1 << 20), False),
        ("big.bin", b"a" * ((1 << 20) + 1), True),
        ("big.json", b"a" * ((1 << 20) + 1), False),
        ("huge.json", b"a" * ((10 << 20) + 1), True),
        ("README.md", b"a\0b", False),
    ],
)
def test_large_and_binary_files_are_lfs(
    hub: FaultHub, client: httpx.Client, name: str, content: bytes, lfs: bool
) -> None:
    make_model(hub.directory, "org/kinds", {name: content})
    (entry,) = client.get("/api/models/org/kinds/tree/main").json()
    blob = client.get(f"/org/kinds/raw/main/{name}").content
    expected: dict[str, Any] = {
        "type": "file",
        "path": name,
        "size": len(content),
        "oid": hashlib.sha1(b"blob %d\0%s" % (len(blob), blob)).hexdigest(),  # noqa: S324 -- Git's
    }
    if lfs:
        expected["lfs"] = {
            "oid": hashlib.sha256(content).hexdigest(),
            "size": len(content),
            "pointerSize": len(blob),
        }
    assert entry == expected
    assert (blob == content) is not lfs


def test_folder_ids_are_those_of_git(client: httpx.Client, tmp_path: Path) -> None:
    files = {"a/b.txt": b"1", "a/b/c.txt": b"2", "a/b.d/e.txt": b"3", "a/b/d/ü.txt": b"4"}
    make_model(tmp_path, "org/git", files)

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path / "org/git", check=True, capture_output=True)
        return done.stdout.decode().strip()

    git("init", "-q")
    git("add", "-f", "a")
    entries = client.get("/api/models/org/git/tree/main?recursive=true").json()
    oids = {entry["path"]: entry["oid"] for entry in entries}
    assert oids["a"] == git("write-tree", "--prefix=a/")
    assert oids["a/b"] == git("write-tree", "--prefix=a/b/")


# Revisions.


def test_a_commit_stands_until_any_file_changes(hub: FaultHub, client: httpx.Client) -> None:
    before = commit_of(client)
    assert get_file(client, revision=before).content == WEIGHTS
    (hub.directory / "org/model/sub/deep/x.txt").write_bytes(b"y")
    after = commit_of(client)
    assert after != before
    for gone in (
        get_file(client, revision=before),
        client.get(f"/api/models/org/model/revision/{before}"),
        client.get(f"/api/models/org/model/tree/{before}"),
    ):
        assert (gone.status_code, gone.headers["x-error-code"]) == (404, "RevisionNotFound")
    assert get_file(client, "sub/deep/x.txt", after).content == b"y"
    (hub.directory / "org/model/sub/deep/x.txt").write_bytes(b"x")
    assert commit_of(client) == before


@pytest.mark.parametrize("change", ["replace", "delete", "rename", "add", "same size and time"])
def test_every_change_makes_another_commit(hub: FaultHub, client: httpx.Client, change: str) -> None:
    before = commit_of(client)
    file = hub.directory / "org/model/w.bin"
    times = file.stat()
    match change:
        case "replace":
            file.write_bytes(WEIGHTS[:-1] + b"x")
        case "delete":
            file.unlink()
        case "rename":
            file.rename(file.with_name("v.bin"))
        case "add":
            file.with_name("v.bin").touch()
        case "same size and time":
            file.unlink()
            file.with_name("other").write_bytes(WEIGHTS[:-1] + b"x")
            file.with_name("other").rename(file)
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert commit_of(client) != before


def test_a_change_is_seen_in_the_file_itself_at_once(tmp_path: Path) -> None:
    make_model(tmp_path, "org/model", {"w.bin": 100})
    with (
        FaultHub(tmp_path, recheck_seconds=3600) as hub,
        httpx.Client(base_url=hub.url, trust_env=False) as client,
    ):
        commit = commit_of(client)
        assert get_file(client, revision=commit).status_code == 200
        (tmp_path / "org/model/w.bin").write_bytes(b"other")
        assert get_file(client, revision=commit).headers["x-error-code"] == "RevisionNotFound"
        assert get_file(client).content == b"other"
        (tmp_path / "org/model/new").write_bytes(b"new")
        assert get_file(client, "new").content == b"new"


def test_an_answer_breaks_off_where_the_file_is_overwritten(hub: FaultHub, client: httpx.Client) -> None:
    make_model(hub.directory, "org/large", {"w.bin": 24 << 20})
    file = hub.directory / "org/large/w.bin"
    with client.stream("GET", "/org/large/resolve/main/w.bin") as answer:
        chunks = answer.iter_raw()
        next(chunks)
        with file.open("r+b") as opened:
            opened.seek(-1, os.SEEK_END)
            opened.write(b"!")
        with pytest.raises(httpx.RemoteProtocolError):
            list(chunks)


@pytest.mark.parametrize(
    "written", ["feature%2Fx", "feature/x", "refs%2Fheads%2Ffeature%2Fx", "refs/heads/feature/x"]
)
def test_a_branch_with_a_slash(hub: FaultHub, client: httpx.Client, written: str) -> None:
    make_model(hub.directory, "org/model", {"a/b.txt": b"on the branch"}, branch="feature/x")
    assert get_file(client, "a/b.txt", written).content == b"on the branch"
    assert [entry["path"] for entry in client.get(f"/api/models/org/model/tree/{written}").json()] == ["a"]
    assert [entry["path"] for entry in client.get(f"/api/models/org/model/tree/{written}/a").json()] == [
        "a/b.txt"
    ]
    assert commit_of(client, written) != commit_of(client)


def test_a_listing_that_changes_between_two_pages_ends(tmp_path: Path) -> None:
    make_model(tmp_path, "org/model", {f"{at}.txt": b"x" for at in range(6)})
    with FaultHub(tmp_path, page_size=4) as hub, httpx.Client(trust_env=False) as client:
        first = client.get(f"{hub.url}/api/models/org/model/tree/main?recursive=true")
        (tmp_path / "org/model/5.txt").write_bytes(b"changed")
        second = client.get(first.links["next"]["url"])
        assert second.headers["x-error-code"] == "RevisionNotFound"


# Refusals.


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/models/org/none", 404, "RepoNotFound"),
        ("/api/models/..%2F..%2Fetc/passwd", 404, None),
        ("/api/models/../..", 404, None),
        ("/org/none/resolve/main/x", 404, "RepoNotFound"),
        ("/org/model/resolve/none/w.bin", 404, "RevisionNotFound"),
        ("/org/model/resolve/main/none", 404, "EntryNotFound"),
        ("/org/model/resolve/main/", 404, "EntryNotFound"),
        ("/org/model/resolve/main/sub", 404, "EntryNotFound"),
        ("/org/model/resolve/main/..%2Fmodel%2Fw.bin", 404, "EntryNotFound"),
        ("/org/model/resolve/main/%2Fetc%2Fpasswd", 404, "EntryNotFound"),
        ("/org/model/resolve/main/w.bin%00", 404, "EntryNotFound"),
        ("/org/model/resolve/main/%FF", 404, "EntryNotFound"),
        ("/org/model/resolve/%2E%2E/w.bin", 404, "RevisionNotFound"),
        ("/org/model/resolve/caf%C3%A9/w.bin", 404, "RevisionNotFound"),
        ("/api/models/org/model/tree/main/none", 404, "EntryNotFound"),
        ("/api/models/org/model/tree/main?limit=0", 400, "BadRequest"),
        ("/api/models/org/model/tree/main?limit=many", 400, "BadRequest"),
        ("/api/models/org/model/tree/main?cursor=nonsense", 400, "BadRequest"),
        ("/api/models/org/model/tree/main?cursor=WzFd", 400, "BadRequest"),
        ("/api/models?cursor=W1tdXQ==", 400, "BadRequest"),
        ("/api/whoami-v2", 401, None),
        ("/nothing", 404, None),
    ],
)
def test_a_refusal_says_what_is_missing(
    client: httpx.Client, path: str, status: int, code: str | None
) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.headers.get("x-error-code")) == (status, code)
    assert answer.json()["error"]
    assert ("x-error-message" in answer.headers) is (code is not None)


def test_what_is_missing_names_the_commit_it_is_missing_from(client: httpx.Client) -> None:
    assert get_file(client, "none").headers["x-repo-commit"] == commit_of(client)


def test_links_hidden_and_outside_files_are_not_served(hub: FaultHub, client: httpx.Client) -> None:
    model = hub.directory / "org/model"
    (hub.directory / "secret").write_bytes(b"secret")
    (model / "link").symlink_to(hub.directory / "secret")
    (model / "folder").symlink_to(hub.directory)
    for hidden in (".git/config", ".env", "sub/.hidden/x", ".hub.json"):
        (model / hidden).parent.mkdir(exist_ok=True)
        (model / hidden).write_bytes(b"{}")
    os.mkfifo(model / "pipe")
    (hub.directory / "org/linked").symlink_to(model)
    paths = {entry["path"] for entry in client.get("/api/models/org/model/tree/main?recursive=true").json()}
    assert paths == {".gitattributes", "README.md", "empty", "sub", "sub/deep", "sub/deep/x.txt", "w.bin"}
    for path in ("link", "folder/secret", ".env", ".git/config", ".hub.json", "pipe"):
        assert get_file(client, path).status_code == 404
    assert client.get("/api/models/org/linked").status_code == 404
    assert [model["id"] for model in client.get("/api/models").json()] == ["org/model"]


def test_a_file_that_became_a_link_is_not_followed(hub: FaultHub, client: httpx.Client) -> None:
    assert get_file(client).status_code == 200
    (hub.directory / "secret").write_bytes(WEIGHTS)
    file = hub.directory / "org/model/w.bin"
    file.unlink()
    file.symlink_to(hub.directory / "secret")
    assert get_file(client).headers["x-error-code"] == "EntryNotFound"


def test_names_keep_their_normal_form(hub: FaultHub, client: httpx.Client) -> None:
    name = unicodedata.normalize("NFD", "한글é.txt")
    make_model(hub.directory, "org/names", {name: b"x"})
    assert [entry["path"] for entry in client.get("/api/models/org/names/tree/main").json()] == [name]
    assert client.get(f"/org/names/resolve/main/{name}").content == b"x"
    assert client.get(f"/org/names/resolve/main/{unicodedata.normalize('NFC', name)}").status_code == 404
