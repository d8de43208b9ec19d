import posixpath
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_client.errors import PathRefused
from proxy_client.paths import folded
from storage_proxy.volumes.paths import (
    check_destination,
    check_path,
    check_readable,
    check_tree,
    default_path,
    manifest_name,
)

HANGUL_NFD = unicodedata.normalize("NFD", "모델.bin")


@pytest.mark.parametrize(
    "path",
    [
        "config.json",
        "a/b/c.safetensors",
        "..hidden",
        "a b/c d.txt",
        "모델.bin",
        HANGUL_NFD,
        "x" * 255,
        "a/" * 63 + "a",
        "~root/$HOME/%2e%2e/%00",
        "a:b*c?d|e",
        ".staging2/x",
    ],
)
def test_an_odd_but_harmless_path_is_taken_as_it_is(path: str) -> None:
    assert check_path(path) == path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "empty"),
        ("/", "absolute"),
        ("/etc/passwd", "absolute"),
        ("a/", "ends with a slash"),
        ("..", "'.' or '..'"),
        (".", "'.' or '..'"),
        ("a/../b", "'.' or '..'"),
        ("a/./b", "'.' or '..'"),
        ("../../etc/cron.d/x", "'.' or '..'"),
        ("a//b", "a component is empty"),
        ("a\\b", "backslash"),
        ("a\0b", "class Cc"),
        ("a\nb", "class Cc"),
        ("a\x7f", "class Cc"),
        ("a\u202etxt.exe", "class Cf"),
        ("a\u200bb", "class Cf"),
        ("a\ud800", "class Cs"),
        ("a\ue000", "class Co"),
        ("a\u2028b", "class Zl"),
        ("a\u2029b", "class Zp"),
        (" a", "begins or ends with a space"),
        ("a/b /c", "begins or ends with a space"),
        ("a\u00a0", "begins or ends with a space"),
        ("x" * 256, "longer than 255 bytes"),
        ("é" * 128, "longer than 255 bytes"),
        (("x" * 200 + "/") * 20 + "x", "longer than 4000 bytes"),
        ("a/" * 64 + "a", "deeper than 64"),
        (".stowage", "own name"),
        ("a/.stowage/x.json", "own name"),
        (".StOwAgE/x", "own name"),
        (".\u017ftaging/x", "own name"),
        (".staging/x", "own name"),
    ],
)
def test_a_hostile_path_is_refused_with_the_reason(path: str, reason: str) -> None:
    with pytest.raises(PathRefused, match=reason):
        check_path(path)


def test_a_refusal_shows_the_path_escaped_and_bounded() -> None:
    with pytest.raises(PathRefused) as refused:
        check_path("\x1b[31m" + "x" * 10_000)
    assert "\\x1b[31m" in refused.value.message
    assert "\x1b" not in refused.value.message
    assert len(refused.value.message) < 300


def test_a_manifest_may_be_read_and_staging_may_not() -> None:
    assert check_readable(".stowage/x.json") == ".stowage/x.json"
    with pytest.raises(PathRefused):
        check_readable(".staging/task/tree/x")


def test_the_root_is_a_destination_and_nothing_like_it() -> None:
    assert check_destination("/") == "/"
    for path in ("//", "/a", "", ".", "./"):
        with pytest.raises(PathRefused):
            check_destination(path)


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["a", "b", "a"], "comes twice"),
        (["README.md", "readme.MD"], "differ only by"),
        (["stra\u00dfe", "STRASSE"], "differ only by"),
        (["é", "e\u0301"], "differ only by"),
        (["Data/a", "data/b"], "differ only by"),
        (["a/b", "a"], "both a file and a folder"),
        (["a", "a/b/c"], "both a file and a folder"),
        (["A", "a/b"], "differ only by"),
        (["ok", "../bad"], "'.' or '..'"),
    ],
)
def test_names_that_cannot_lie_in_one_folder_are_refused(paths: list[str], reason: str) -> None:
    with pytest.raises(PathRefused, match=reason):
        check_tree(paths)
    with pytest.raises(PathRefused):
        check_tree(reversed(paths))


def test_a_real_tree_is_accepted() -> None:
    check_tree(["a/b/c", "a/b/d", "a/e", "ab", HANGUL_NFD, "onnx/model.onnx", "onnx_fp16/model.onnx"])


def test_the_default_path_encodes_the_slashes_of_a_version() -> None:
    assert default_path("org/name", "main") == "org/name/main"
    assert default_path("org/name", "refs/pr/1") == "org/name/refs%2Fpr%2F1"
    with pytest.raises(PathRefused):
        default_path("org/name", "..")


def test_manifests_of_different_artifacts_have_different_names() -> None:
    assert manifest_name("org/name", "refs/pr/1") == "org%2Fname@refs%2Fpr%2F1.json"
    long = [manifest_name("org/name", "é" * 200 + end) for end in "ab"]
    assert long[0] != long[1]
    assert all(len(name) <= 255 for name in long)


@given(st.text())
def test_what_is_accepted_stays_inside(path: str) -> None:
    try:
        check_path(path)
    except PathRefused:
        return
    inside = posixpath.normpath(posixpath.join("/root/folder", path))
    assert inside.startswith("/root/folder/")
    assert inside == f"/root/folder/{path}"
    assert path.encode()


@given(st.lists(st.text("aAbB/.é\u0301ß", min_size=1, max_size=8), max_size=6))
def test_an_accepted_tree_fits_a_file_system_that_ignores_case(paths: list[str]) -> None:
    try:
        check_tree(paths)
    except PathRefused:
        return
    files = {folded(path) for path in paths}
    folders = {folded(path[:cut]) for path in paths for cut in range(len(path)) if path[cut] == "/"}
    assert len(files) == len(paths)
    assert not files & folders
