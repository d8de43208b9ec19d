import re
from pathlib import Path

import pytest

from tests.cli.test_help import COMMANDS

README = Path(__file__).parent.parent.parent / "README.md"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_table_of_commands_names_every_command(command: list[str]) -> None:
    rows = [row for row in README.read_text().splitlines() if row.startswith("| `stowage ")]
    mine = [row for row in rows if re.match(rf"\| .*`stowage {command[0]}\b", row)]
    assert mine, f"no row of README's table names `stowage {command[0]}`"
    assert any(re.search(rf"\b{command[-1]}\b", row) for row in mine)
