"""What a preview tells is what the import then meets."""

from tests.e2e.world import Files, World

FILES: Files = {"config.json": b'{"a": 1}', "big.bin": 300_000}
SIZE = str(300_000 + 8)

PREVIEW = """query ($input: ImportPreviewInput!) { importPreview(input: $input) {
  path size missing alreadyThere fits truncated conflicts { path reason } quota { limit free } } }"""
MODELS = """query ($id: ID!) { vfolder(id: $id) { models { edges { node {
  artifact version path registry commit size fileCount importedBy taskId } } } } }"""


def test_a_preview_tells_what_the_import_meets(world: World) -> None:
    model, folder = world.model(FILES), world.folder(world.person())
    revision = world.scan(model)
    asked = {"input": {"artifactRevisionId": revision["id"], "vfolderId": folder.id}}
    token = folder.owner.token

    seen = world.stack.graphql(PREVIEW, asked, token=token)["importPreview"]
    path = f"{model.id}/main"
    fresh = {"path": path, "size": SIZE, "missing": SIZE, "alreadyThere": False, "fits": True}
    assert seen == fresh | {"truncated": False, "conflicts": [], "quota": {"limit": None, "free": None}}
    assert folder.everything() == {}

    filled = folder.path / path
    filled.mkdir(parents=True)
    (filled / "big.bin").write_bytes(b"mine")
    seen = world.stack.graphql(PREVIEW, asked, token=token)["importPreview"]
    conflict = {"path": f"{path}/big.bin", "reason": "it was not imported"}
    assert seen["conflicts"] == [conflict]
    assert world.bring(model, folder, by=folder.owner)["error"]["code"] == "DESTINATION_CONFLICT"

    (filled / "big.bin").unlink()
    task = world.bring(model, folder, by=folder.owner)
    assert task["status"] == "SUCCEEDED"
    seen = world.stack.graphql(PREVIEW, asked, token=token)["importPreview"]
    assert (seen["missing"], seen["alreadyThere"], seen["conflicts"]) == ("0", True, [])
    (edge,) = world.stack.graphql(MODELS, {"id": folder.id}, token=token)["vfolder"]["models"]["edges"]
    email = edge["node"].pop("importedBy")
    assert email.startswith("user")
    assert edge["node"] == {
        "artifact": model.id,
        "version": "main",
        "path": path,
        "registry": "huggingface",
        "commit": revision["digest"],
        "size": SIZE,
        "fileCount": 2,
        "taskId": task["id"],
    }
