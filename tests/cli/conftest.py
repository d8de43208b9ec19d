import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from graphql import GraphQLSchema, build_schema

from tests.cli.stand_in import (
    TOKEN,
    Outcome,
    StandIn,
    artifact,
    connection,
    file,
    order,
    revision,
    steps,
    task,
    vfolder,
)

SCHEMA = Path(__file__).parent.parent / "schema.graphql"


@pytest.fixture(scope="session")
def schema() -> GraphQLSchema:
    return build_schema(SCHEMA.read_text())


@pytest.fixture
def manager(schema: GraphQLSchema, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in, named by the environment; it has one folder, one model and one import that succeeds."""
    stand_in = StandIn(schema)
    monkeypatch.setenv("STOWAGE_URL", stand_in.url)
    monkeypatch.setenv("STOWAGE_TOKEN", TOKEN)
    stand_in.answers = {
        "artifacts": connection([artifact() | {"revisions": connection([revision()])}]),
        "vfolder": None,
        "vfolders": connection([vfolder()]),
        "importArtifacts": {"artifactRevisions": connection([]), "tasks": [order(task("PENDING"))]},
        "importTask": steps(
            task("RUNNING", step="DOWNLOAD", done=50), task("RUNNING", step="VERIFY"), task("SUCCEEDED")
        ),
        "vfolderFiles": lambda vfolderId, path=None: [  # noqa: ARG005, N803 -- the argument's name in the schema
            file(f"{path}/config.json", 30),
            file(f"{path}/model.safetensors", 70),
        ],
    }
    yield stand_in
    stand_in.close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing of this machine's own Stowage, times in UTC, and short waits."""
    for name in ("STOWAGE_URL", "STOWAGE_TOKEN", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STOWAGE_DATA_DIR", str(tmp_path / "no-stack"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr("stowage.commands.waiting.FASTEST", 0.01)
    monkeypatch.setattr("stowage.commands.waiting.SLOWEST", 0.05)
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def stowage(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command line in this process, its output in pipes."""
    from stowage.cli import main  # noqa: PLC0415 -- after the environment

    def run(*arguments: str) -> Outcome:
        status = main(arguments)
        out, err = capsys.readouterr()
        return Outcome(status, out, err)

    return run
