"""A typed client that ariadne-codegen generates from the published schema, used against a served manager."""

import importlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.graphql.examples import EXAMPLES
from tests.graphql.served import Manager
from tests.graphql.sockets import serve
from tests.graphql.test_live import an_import, report

ROOT = Path(__file__).parents[2]
GENERATOR = ROOT / ".venv-codegen" / "bin" / "ariadne-codegen"

pytestmark = pytest.mark.anyio

MORE = """
query Everything { me { email role } artifacts(first: 1) { count edges { cursor node { ...Named } } } }
fragment Named on Artifact { id name type availability scannedAt registry { name } revisions { edges { node { size status } } } }
query Task($id: ID!) { importTask(id: $id) { status destination {
  ... on ArtifactStorageDestination { storageName } ... on VFolderDestination { vfolder { id } } } } }
query Find($filter: ArtifactFilter, $order: [ArtifactOrderBy!]) { artifacts(filter: $filter, orderBy: $order) {
  edges { node { name } } } }
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    if not GENERATOR.exists():
        if os.environ.get("CI"):
            pytest.fail("no ariadne-codegen: run make codegen")
        pytest.skip("no ariadne-codegen: run make codegen")
    directory = tmp_path_factory.mktemp("generated")
    (directory / "queries.graphql").write_text("\n".join([*EXAMPLES.values(), MORE]))
    (directory / "codegen.toml").write_text(
        f"""
        [tool.ariadne-codegen]
        schema_path = "{ROOT / "tests" / "schema.graphql"}"
        queries_path = "queries.graphql"
        target_package_name = "generated_client"
        """
    )
    subprocess.run([GENERATOR, "--config", "codegen.toml"], cwd=directory, check=True, capture_output=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(directory)
        yield importlib.import_module("generated_client")


async def test_a_generated_client_asks_changes_and_follows(manager: Manager, generated: ModuleType) -> None:
    revision, task = await an_import(manager)
    bearer = {"Authorization": f"Bearer {manager.admin.token}"}
    async with serve(manager) as served:
        client = generated.Client(
            url=served.address.replace("ws:", "http:"),
            headers=bearer,
            ws_url=served.address,
            ws_connection_init_payload=bearer,
        )
        async with client:
            everything = await client.everything()
            assert (everything.me.email, everything.me.role) == ("admin@localhost", generated.UserRole.ADMIN)
            artifact = everything.artifacts.edges[0].node
            assert (artifact.name, artifact.type_) == ("org/model", generated.ArtifactType.MODEL)
            assert artifact.revisions.edges[0].node.status is generated.ArtifactStatus.PULLING

            found = await client.find(
                filter_=generated.ArtifactFilter(name=generated.StringFilter(i_contains="MODEL")),
                order=[generated.ArtifactOrderBy(field=generated.ArtifactOrderField.NAME)],
            )
            assert [edge.node.name for edge in found.artifacts.edges] == ["org/model"]

            told = (await client.task(id=str(task.id))).import_task
            assert told.destination.storage_name == "archive"

            folder = (await client.create_folder()).create_vfolder.vfolder
            assert folder.permission is generated.VFolderPermission.RW_DELETE
            with pytest.raises(generated.GraphQLClientGraphQLMultiError) as refused:
                await client.create_folder()
            assert refused.value.errors[0].extensions["code"] == "CONFLICT"

            results = client.watch_revision(revision=str(revision.id))
            seen = (await anext(results)).artifact_import_progress_updated
            assert (seen.progress, seen.status) == (0.0, generated.ArtifactStatus.PULLING)
            await report(manager, task.id, 1, "succeeded", commit="a" * 40)
            rest = [each.artifact_import_progress_updated.status async for each in results]
            assert rest == [generated.ArtifactStatus.AVAILABLE]
