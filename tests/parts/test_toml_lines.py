import tomllib
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_client.toml_lines import find_lines, line_of


def lines(text: str) -> dict[str, int]:
    return {".".join(map(str, path)): line for path, line in find_lines(dedent(text)).items()}


def test_tables_and_keys_are_found_between_comments_and_empty_lines() -> None:
    assert lines("""\
        # what this is

        [proxy]  # [not.this]
        name = "local"

          listen = "h:1"
        [ volume . one ]
        path = "/p"
        """) == {
        "proxy": 3,
        "proxy.name": 4,
        "proxy.listen": 6,
        "volume": 7,
        "volume.one": 7,
        "volume.one.path": 8,
    }


def test_quoted_and_dotted_keys_are_the_keys_they_mean() -> None:
    found = find_lines('a."b.c".d = 1\n"x \\u0041 = [" = 2\n\'y"]\' = 3\n[ "t.#" ]\nz = 4\n')
    assert found == {
        ("a",): 1,
        ("a", "b.c"): 1,
        ("a", "b.c", "d"): 1,
        ("x A = [",): 2,
        ('y"]',): 3,
        ("t.#",): 4,
        ("t.#", "z"): 5,
    }


def test_a_table_named_first_by_a_deeper_one_stands_where_its_own_header_is() -> None:
    assert lines("[a.b]\nx = 1\n[a]\ny = 1\n") == {"a": 3, "a.b": 1, "a.b.x": 2, "a.y": 4}


@pytest.mark.parametrize(
    "value",
    [
        '"""\n[a]\nb = 1 \\""" # "\n"""',
        "'''\n[a]\n\\'''",
        '"""x"""""',
        "[1, # ]\n \"]\", ['['],\n]",
        '{x = "}", y = [{z = 1},\n]}',
        '""',
        "''",
        '"\\\\"',
        "1 # '",
    ],
)
def test_what_looks_like_a_key_in_a_value_is_none(value: str) -> None:
    text = f"[t]\nkey = {value}\nlast = 1\n"
    assert tomllib.loads(text)
    assert lines(text) == {"t": 1, "t.key": 2, "t.last": text.count("\n")}


def test_arrays_of_tables_are_counted() -> None:
    assert lines("[[a]]\nx = 1\n[[a]]\n[a.b]\ny = 1\n[[a.c]]\n[[a.c]]\nz = 1\n") == {
        "a": 1,
        "a.0": 1,
        "a.0.x": 2,
        "a.1": 3,
        "a.1.b": 4,
        "a.1.b.y": 5,
        "a.1.c": 6,
        "a.1.c.0": 6,
        "a.1.c.1": 7,
        "a.1.c.1.z": 8,
    }


def test_what_has_no_line_stands_where_the_nearest_table_around_it_does() -> None:
    found = find_lines('[a]\n[volume]\none = {path = "/p", size = 1}\n')
    assert line_of(found, ("volume", "one", "size")) == 3
    assert line_of(found, ("volume", "two")) == 2
    assert line_of(found, ("other", "x")) is None


def test_carriage_returns_count_no_line() -> None:
    assert find_lines("[a]\r\nb = 1\r\n\r\nc = 2\r\n") == {("a",): 1, ("a", "b"): 2, ("a", "c"): 4}


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), min_size=1, max_size=5)
VALUES = st.one_of(
    st.integers(0, 9).map(str),
    st.text(st.characters(codec="utf-8", exclude_characters="\x7f"), max_size=8).map(
        lambda text: (
            '"' + text.encode("unicode_escape").decode().replace('"', '\\"').replace("\\x", "\\u00") + '"'
        )
    ),
    st.sampled_from(["[\n1,\n]", '"""\n\n"""', "{a = 1}", "[] # x = 1", "'''\n[x]\n'''"]),
)


@given(st.lists(st.tuples(KEYS, VALUES, st.integers(0, 2)), max_size=6, unique_by=lambda entry: entry[0]))
def test_every_key_stands_on_the_line_it_was_written_on(entries: list[tuple[str, str, int]]) -> None:
    text, wanted = "", {}
    for key, value, empty in entries:
        text += "\n" * empty
        quoted = '"' + "".join(f"\\U{ord(letter):08x}" for letter in key) + '"'
        wanted[key,] = text.count("\n") + 1
        text += f"{quoted} = {value}\n"
    assert_is_toml(text, [key for key, _value, _empty in entries])
    assert find_lines(text) == wanted


def assert_is_toml(text: str, keys: list[str]) -> None:
    assert list(tomllib.loads(text)) == keys
