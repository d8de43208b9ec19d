import re
from pathlib import Path

import pytest

from tests.cli.test_help import COMMANDS

README = Path(__file__).parent.parent.parent / "README.md"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_table_of_commands_names_every_command(command: list[str]) -> None:
    cells = [row.split(" | ")[0] for row in README.read_text().splitlines() if row.startswith("| `stowage ")]
    group, word = command[0], command[-1]
    mine = [cell for cell in cells if re.search(rf"`(stowage )?{group}\b", cell)]
    assert mine, f"no row of README's table names `stowage {group}`"
    assert any(re.search(rf"\b{word}\b", cell) for cell in mine), f"its row does not name `{word}`"
