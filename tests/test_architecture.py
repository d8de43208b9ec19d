"""The shape of the house: who imports whom, and what one id passes on its way."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("manager", "proxy_client", "storage_proxy", "stowage", "migrations")


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def test_the_contracts_on_imports_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_only_the_jobs_module_of_the_proxy_speaks_to_postgresql() -> None:
    speaks = re.compile(r"\b(asyncpg|sqlalchemy|psycopg)\b")
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "storage_proxy").rglob("*.py")
        if speaks.search(path.read_text())
    }
    assert found == {"storage_proxy/imports/jobs.py"}


def test_no_name_speaks_of_its_layer() -> None:
    layer = re.compile(r"^class \w*(Handler|Processor|Manager|Helper|DTO)\b", re.MULTILINE)
    found = [(path.name, match[0]) for path in sources() for match in layer.finditer(path.read_text())]
    assert found == []


def test_every_command_of_the_makefile_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets
