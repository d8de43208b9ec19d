from collections.abc import Iterator

import pytest

from tests.faults.hub import FaultHub
from tests.faults.imports import Site


@pytest.fixture(scope="package")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("faults")
    (directory / "hub").mkdir()
    with FaultHub(directory / "hub") as hub:
        site = Site(directory / "data", hub)
        yield site
        site.stop()


@pytest.fixture
def site(running_site: Site) -> Iterator[Site]:
    """The session's stack whose parts may be killed; afterwards it is whole again, and no import is open."""
    running_site.stack.wait_ready()
    running_site.until(running_site.is_whole)
    yield running_site
    running_site.hub.clear()
    for row in running_site.rows("SELECT id::text FROM import_tasks WHERE finished_at IS NULL"):
        running_site.cancel(row["id"])
        running_site.finished(row["id"])
