"""The Model Store page as it is committed: built from these sources, whole, small, and with nothing from elsewhere."""

import gzip
import json
import re
from hashlib import sha256
from pathlib import Path

from graphql import build_schema, parse, validate
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
APP = ROOT / "manager/webui/app"
BUILT = ROOT / "manager/webui/static/app"
# What manager/webui/app/scripts/sources.mjs leaves out: what is not built from, or is made from the rest.
NO_SOURCE = re.compile(r"node_modules/.*|src/graphql/generated\.ts|.*\.test\.tsx?")
# Compressed, for the first view.
MOST_SCRIPT = 300_000


def sources() -> list[str]:
    every = (path for path in APP.rglob("*") if "node_modules" not in path.parts and path.is_file())
    names = (path.relative_to(APP).as_posix() for path in every)
    return sorted(name for name in names if not NO_SOURCE.fullmatch(name))


def test_it_is_built_from_its_sources() -> None:
    digest = sha256()
    for name in sources():
        digest.update(f"{name}\0{sha256((APP / name).read_bytes()).hexdigest()}\n".encode())
    built = json.loads((BUILT / "sources.json").read_text())
    assert built == {"sha256": digest.hexdigest()}, "run make web and commit what it writes"


def test_what_it_asks_fits_the_schema() -> None:
    # Types are made from both; a schema that only grew changes none of them.
    operations = parse((APP / "src/graphql/operations.graphql").read_text())
    schema = build_schema((ROOT / "tests/schema.graphql").read_text())
    assert validate(schema, operations) == []


def test_every_file_that_it_names_is_there() -> None:
    named = re.findall(r'(?:src|href)="/app/([^"]+)"', (BUILT / "index.html").read_text())
    assert named
    for style in BUILT.glob("assets/*.css"):
        named += [found.lstrip("/") for found in re.findall(r"url\(/app(/assets/[^)]+)\)", style.read_text())]
    for script in BUILT.glob("assets/*.js"):
        named += [f"assets/{name}" for name in re.findall(r'import\("\./([\w.-]+)"\)', script.read_text())]
    assert [name for name in named if not (BUILT / name).is_file()] == []


def test_its_policy_lets_all_of_it_run() -> None:
    page = (BUILT / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=", page) == []
    for path in BUILT.rglob("*.css"):
        assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", path.read_text()), path.name
    for path in BUILT.rglob("*.js"):
        assert not re.search(
            r"unpkg\.com|jsdelivr|esm\.sh|cdnjs|googleapis|\beval\(|new Function\(", path.read_text()
        )


def test_the_first_view_is_small() -> None:
    first = re.findall(r'src="/app/([^"]+)"', (BUILT / "index.html").read_text())
    size = sum(len(gzip.compress((BUILT / name).read_bytes())) for name in first)
    assert 0 < size < MOST_SCRIPT


def test_the_package_holds_it_and_not_its_sources() -> None:
    packed = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    built = {path.relative_to(ROOT).as_posix() for path in BUILT.rglob("*") if path.is_file()}
    assert built <= packed
    assert [path for path in packed if path.startswith("manager/webui/app/")] == []


def test_no_registry_is_named() -> None:
    locked = json.loads((APP / "package-lock.json").read_text())["packages"]
    assert [name for name, entry in locked.items() if "resolved" in entry] == []
    asked = json.loads((APP / "package.json").read_text())
    versions = [*asked["dependencies"].values(), *asked["devDependencies"].values()]
    assert [version for version in versions if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
