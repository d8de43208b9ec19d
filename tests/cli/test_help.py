from collections.abc import Callable, Iterator
from typing import Any

import pytest
from graphql import GraphQLSchema, parse, validate
from typer.core import TyperGroup
from typer.main import get_command

from proxy_client.errors import CODES, BadRequest, error_for
from stowage import administration, documents
from stowage.cli import app, exit_status
from stowage.commands.parts import parse_listen
from tests.cli.stand_in import Outcome

Run = Callable[..., Outcome]

TOP = get_command(app)


def commands_of(group: Any, *above: str) -> Iterator[list[str]]:
    """Every command that does something, by its words."""
    for name in group.list_commands(None):
        found = group.get_command(None, name)
        if isinstance(found, TyperGroup):
            yield from commands_of(found, *above, name)
        else:
            yield [*above, name]


COMMANDS = list(commands_of(TOP))
GROUPS = sorted({command[0] for command in COMMANDS if len(command) > 1})


def test_the_commands_are_found() -> None:
    for words in ("up", "folder delete", "user revoke", "token create", "artifact show", "task retry"):
        assert words.split() in COMMANDS


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_help_teaches_by_examples_of_that_command(stowage: Run, command: list[str]) -> None:
    outcome = stowage(*command, "--help")
    assert outcome.status == 0
    examples = [line for line in outcome.out.splitlines() if line.startswith("    $ ")]
    assert examples
    assert " ".join(["stowage", *command]) in examples[0]


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_help_holds_no_holes(stowage: Run, command: list[str]) -> None:
    _usage, _examples, notes = stowage(*command, "--help").out.partition("Examples:")
    paragraphs = [line for line in notes.splitlines() if line.strip() and not line.strip().startswith("$ ")]
    assert [line for line in paragraphs if "  " in line.strip() or line.startswith("     ")] == []


@pytest.mark.parametrize("command", [[], *([group] for group in GROUPS), *COMMANDS], ids=" ".join)
def test_help_fits_its_page(stowage: Run, command: list[str]) -> None:
    assert max(map(len, stowage(*command, "--help").out.splitlines())) <= 92


SERVERS = {"up", "hub", "manager", "proxy", "worker", "migrate"}


@pytest.mark.parametrize("command", [each for each in COMMANDS if each[0] not in SERVERS], ids=" ".join)
def test_every_command_speaks_json(stowage: Run, command: list[str]) -> None:
    assert "\n  --json " in stowage(*command, "--help").out


def test_the_list_of_commands_names_each_with_its_purpose(stowage: Run) -> None:
    out = stowage("--help").out
    for line in [
        "  up        Run all of Stowage on this machine, in the foreground.",
        "  import    Import a model into a folder or the artifact storage.",
        "  task      List, watch, cancel and retry imports.",
        "  version   Print the version.",
    ]:
        assert line in out.splitlines()


@pytest.mark.parametrize("group", [[], *([group] for group in GROUPS)], ids=" ".join)
def test_a_group_without_a_command_shows_its_help(stowage: Run, group: list[str]) -> None:
    outcome = stowage(*group)
    assert outcome.status == 2
    assert outcome.out.startswith("Usage: stowage")


def test_a_misspelt_command_is_answered_with_the_nearest(stowage: Run) -> None:
    outcome = stowage("improt")
    assert outcome.status == 2
    assert "Did you mean 'import'" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [["import"], ["import", "a/b", "--bogus"], ["import", "a/b", "--on-conflict", "x"], ["task", "show"]],
)
def test_wrong_use_is_one_line_that_names_the_help(stowage: Run, arguments: list[str]) -> None:
    outcome = stowage(*arguments)
    assert outcome.status == 2
    assert outcome.err.count("\n") == 1
    assert "--help`" in outcome.err


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (
            2,
            {
                "BAD_REQUEST",
                "NOT_FOUND",
                "CONFLICT",
                "UNSUPPORTED_REGISTRY",
                "SOURCE_NOT_FOUND",
                "PATH_REFUSED",
            },
        ),
        (3, {"UNAUTHENTICATED", "FORBIDDEN", "UNAVAILABLE"}),
    ],
)
def test_every_code_has_its_exit_status(status: int, codes: set[str]) -> None:
    assert {code for code in CODES if exit_status(error_for(code, "")) == status} == codes


def test_every_document_fits_the_schema(schema: GraphQLSchema) -> None:
    texts = [
        text
        for module in (documents, administration)
        for name, text in vars(module).items()
        if name.isupper() and not name.startswith("_")
    ]
    assert len(texts) == 55
    for text in texts:
        assert validate(schema, parse(text)) == []


@pytest.mark.parametrize(
    ("text", "address"),
    [("127.0.0.1:8765", ("127.0.0.1", 8765)), ("[::1]:0", ("::1", 0)), ("localhost:80", ("localhost", 80))],
)
def test_an_address_to_listen_on_is_host_and_port(text: str, address: tuple[str, int]) -> None:
    assert parse_listen(text) == address


@pytest.mark.parametrize(
    "text", ["", "8765", ":8765", "localhost", "localhost:", "localhost:65536", "h:-1", "h:٣"]
)
def test_what_is_no_address_to_listen_on_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="HOST:PORT"):
        parse_listen(text)
