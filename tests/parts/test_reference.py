"""The documentation of the settings, against the models that read them."""

import re
import tomllib
from pathlib import Path

import pytest

from proxy_client.configuration import Section, key_of, read_toml, sections_of
from proxy_client.errors import CODES, error_for
from stowage.reference import FILES, example, example_name, with_tables

DOCS = Path(__file__).parents[2] / "docs"
OPERATIONS = (DOCS / "operations.md").read_text()

both = pytest.mark.parametrize("file", FILES)


def sections(settings: Section) -> list[Section]:
    inside: list[Section] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        inside += (
            [value] if isinstance(value, Section) else list(value.values()) if isinstance(value, dict) else []
        )
    return inside


@both
def test_the_example_is_what_the_models_say(file: str) -> None:
    assert (DOCS / "examples" / example_name(file)).read_text() == example(file), "run make docs"


@both
def test_the_example_can_be_used_as_it_is(file: str) -> None:
    model, prefix = FILES[file]
    settings = read_toml(DOCS / "examples" / example_name(file), model, prefix, {}).settings
    assert settings.model_fields_set == set(model.model_fields)


@both
def test_the_example_shows_every_setting_with_its_default(file: str, tmp_path: Path) -> None:
    model, prefix = FILES[file]
    every = tmp_path / file
    every.write_text(re.sub(r"^#(?=[a-z-]+ = |\[)", "", example(file), flags=re.MULTILINE))
    settings = read_toml(every, model, prefix, {}).settings
    found = sections(settings)
    assert {type(section) for section in found} == set(kinds_of_tables(file))
    for section in found:
        assert section.model_fields_set == set(type(section).model_fields)
        for name, info in type(section).model_fields.items():
            if not info.is_required() and info.default_factory is None and info.default is not None:
                assert getattr(section, name) == info.default


def kinds_of_tables(file: str) -> list[type[Section]]:
    model, _prefix = FILES[file]
    return [section for info in model.model_fields.values() for section in sections_of(info.annotation)]


@both
def test_every_setting_is_documented_in_the_example(file: str) -> None:
    lines = example(file).splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#?[a-z-]+ = ", line):
            assert re.fullmatch(r"# \S.*\. \(.+\)", lines[number - 1]), line


@both
def test_operations_lists_every_setting_once(file: str) -> None:
    assert with_tables(OPERATIONS) == OPERATIONS, "run make docs"
    block = OPERATIONS.partition(f"<!-- settings of {file} -->")[2].partition("<!-- end -->")[0]
    model, _prefix = FILES[file]
    for name, info in model.model_fields.items():
        heading = rf"\*\*`\[{key_of(name, info)}(?:\.NAME)?\]`\*\*.*?(?=\n\*\*|\Z)"
        tables = re.findall(heading, block, re.DOTALL)
        for table, section in zip(tables, sections_of(info.annotation), strict=True):
            rows = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
            assert rows == [key_of(key, setting) for key, setting in section.model_fields.items()]


def test_the_toml_of_operations_is_valid() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", OPERATIONS, re.DOTALL)
    assert blocks
    for block in blocks:
        assert tomllib.loads(block)


def test_operations_says_what_to_do_for_every_error_code() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \| (.+) \| (.+) \|$", OPERATIONS, re.MULTILINE)
    assert sorted(code for code, *_ in rows) == sorted(CODES)
    for code, status, meaning, remedy in rows:
        assert int(status) == error_for(code, "").status
        assert meaning.strip()
        assert remedy.strip()
