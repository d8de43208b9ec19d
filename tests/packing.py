"""How files of tests are dealt out to several workers: those that share a stack to one, the longest first."""

from pathlib import PurePath

import pytest
from xdist.scheduler import LoadFileScheduling

# Folders with a stack for all their tests, but for the files that start one of their own.
_TOGETHER = ("tests/e2e", "tests/faults")
_ALONE = ("test_configurations.py", "test_entered.py", "test_hub_faults.py")
# Seconds on a busy machine; what is not here takes less than the last.
_LONGEST = {
    "tests/faults": 350,
    "tests/e2e": 280,
    "tests/browser/test_store": 165,
    "tests/stack/test_stack.py": 95,
    "tests/proxy/test_combinations.py": 80,
    "tests/storages/test_publish_crashes.py": 80,
    "tests/proxy/test_object_imports.py": 75,
    "tests/browser/test_graphiql.py": 65,
    "tests/s3/test_storage.py": 65,
    "tests/manager/test_quota.py": 55,
    "tests/e2e/test_entered.py": 55,
    "tests/proxy/test_source_faults.py": 50,
    "tests/manager/test_imports.py": 40,
    "tests/parts/test_commands.py": 40,
    "tests/cli/test_terminal.py": 40,
    "tests/cli/test_commands.py": 40,
    "tests/storages/test_users_files.py": 35,
    "tests/graphql/test_http.py": 35,
    "tests/manager/test_reconciler.py": 30,
    "tests/manager/test_catalog.py": 30,
    "tests/parts/test_live.py": 30,
    "tests/proxy/test_verifying.py": 30,
}


def unit_of(nodeid: str) -> str:
    """Name what a test is dealt out with: its file, or all files of one stack."""
    file = PurePath(nodeid.split("::", 1)[0])
    if str(file.parent) in _TOGETHER and file.name not in _ALONE:
        return str(file.parent)
    if file.match("tests/browser/test_store*.py"):
        return "tests/browser/test_store"
    return str(file)


def longest_first(items: list[pytest.Item]) -> None:
    """Order tests by how long their units take; each worker must come to the same order."""
    items.sort(key=lambda item: -_LONGEST.get(unit_of(item.nodeid), 0))


class Packing(LoadFileScheduling):
    """Deals out units, in the order in which the workers found them."""

    def __init__(self, config: pytest.Config, log: object = None) -> None:
        config.option.loadscopereorder = False  # by the number of tests
        super().__init__(config, log)  # type: ignore[arg-type]

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
