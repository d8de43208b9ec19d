"""The official client, unmodified, against the hub on a real socket."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile, RepoFolder

from stowage.samples import write_samples
from tests.faults.hub import FaultHub
from tests.faults.models import digest_tree, make_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    write_samples(directory)
    make_model(
        directory, "team/names", {"한글/모델 #1 100%.bin": 2 << 20, "empty.bin": 0, "a+b?c.txt": b"text"}
    )
    make_model(directory, "team/names", {"only here.txt": b"branch"}, branch="feature/ünïcode")
    return directory


@pytest.fixture(scope="module")
def hub(models: Path) -> Iterator[FaultHub]:
    with FaultHub(models, page_size=7) as running:
        yield running


@pytest.fixture(autouse=True)
def _only_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection but those to this machine, and keep the client quiet."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    look_up = socket.getaddrinfo

    def only_here(host: Any, *rest: Any, **named: Any) -> Any:
        assert host in {"127.0.0.1", b"127.0.0.1"}, f"a request to {host!r}"
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", only_here)


@pytest.fixture
def api(hub: FaultHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


def download(hub: FaultHub, model_id: str, target: Path, **options: Any) -> dict[str, str]:
    snapshot_download(model_id, endpoint=hub.url, token=False, local_dir=target, **options)
    return {path: sha for path, sha in digest_tree(target).items() if not path.startswith(".cache/")}


@pytest.mark.parametrize("model_id", ["sample/tiny-bert", "sample/many-files", "team/names"])
def test_a_snapshot_is_exact(hub: FaultHub, models: Path, tmp_path: Path, model_id: str) -> None:
    assert download(hub, model_id, tmp_path) == digest_tree(models / model_id)


@pytest.mark.parametrize("revision", ["fp16", "v1.0"])
def test_a_snapshot_of_a_branch_and_of_a_tag(
    hub: FaultHub, models: Path, tmp_path: Path, revision: str
) -> None:
    folder = {"fp16": "@fp16", "v1.0": "."}[revision]
    got = download(hub, "sample/tiny-gpt", tmp_path, revision=revision)
    assert got == digest_tree(models / "sample/tiny-gpt" / folder)


def test_a_snapshot_of_a_branch_with_a_slash(hub: FaultHub, tmp_path: Path) -> None:
    assert list(download(hub, "team/names", tmp_path, revision="feature/ünïcode")) == ["only here.txt"]


def test_a_snapshot_of_a_commit(hub: FaultHub, api: HfApi, models: Path, tmp_path: Path) -> None:
    commit = api.model_info("sample/tiny-gpt", revision="fp16").sha
    got = download(hub, "sample/tiny-gpt", tmp_path, revision=commit)
    assert got == digest_tree(models / "sample/tiny-gpt/@fp16")


def test_one_file_of_a_subfolder(hub: FaultHub, models: Path, tmp_path: Path) -> None:
    got = hf_hub_download(
        "sample/tiny-bert", "config.json", subfolder="onnx", endpoint=hub.url, token=False, cache_dir=tmp_path
    )
    assert Path(got).read_bytes() == (models / "sample/tiny-bert/onnx/config.json").read_bytes()


def test_one_file_with_an_awkward_name(hub: FaultHub, models: Path, tmp_path: Path) -> None:
    name = "한글/모델 #1 100%.bin"
    got = hf_hub_download("team/names", name, endpoint=hub.url, token=False, cache_dir=tmp_path)
    assert Path(got).read_bytes() == (models / "team/names" / name).read_bytes()


def test_model_info_with_sizes_and_digests(api: HfApi, models: Path) -> None:
    info = api.model_info("sample/tiny-bert", files_metadata=True)
    digests = digest_tree(models / "sample/tiny-bert")
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    weights = siblings["model.safetensors"]
    assert siblings.keys() == digests.keys()
    assert weights.lfs is not None
    assert weights.lfs.sha256 == digests["model.safetensors"]
    assert weights.size == weights.lfs.size == (models / "sample/tiny-bert/model.safetensors").stat().st_size
    assert siblings["config.json"].lfs is None
    assert (info.author, info.downloads, info.likes, info.private, info.gated) == (
        "sample",
        1200,
        34,
        False,
        False,
    )
    assert info.last_modified is not None
    assert "bert" in (info.tags or [])


def test_the_tree_over_more_than_one_page(hub: FaultHub, api: HfApi, models: Path) -> None:
    hub.forget()
    entries = list(api.list_repo_tree("sample/many-files", recursive=True))
    files = {entry.path for entry in entries if isinstance(entry, RepoFile)}
    assert files == digest_tree(models / "sample/many-files").keys()
    assert len([entry for entry in entries if isinstance(entry, RepoFolder)]) == 11
    assert len(hub.seen("/tree/")) == 31


def test_the_tree_of_a_folder(api: HfApi) -> None:
    entries = api.list_repo_tree("team/names", "한글")
    assert [entry.path for entry in entries] == ["한글/모델 #1 100%.bin"]


def test_the_top_of_the_tree_with_last_commits(api: HfApi) -> None:
    entries = list(api.list_repo_tree("sample/tiny-bert", expand=True))
    assert [entry.path for entry in entries if isinstance(entry, RepoFolder)] == ["onnx"]
    commits = {entry.last_commit.oid for entry in entries if entry.last_commit}
    assert commits == {api.model_info("sample/tiny-bert").sha}


def test_refs_with_branches_and_tags(api: HfApi) -> None:
    refs = api.list_repo_refs("sample/tiny-gpt", include_pull_requests=True)
    commits = {
        name: api.model_info("sample/tiny-gpt", revision=name).sha for name in ("main", "fp16", "v1.0")
    }
    found = {ref.name: ref.target_commit for ref in [*refs.branches, *refs.tags]}
    assert found == commits
    assert [ref.ref for ref in refs.tags] == ["refs/tags/v1.0"]
    assert commits["main"] == commits["v1.0"] != commits["fp16"]


def test_search(api: HfApi) -> None:
    def found(**options: Any) -> list[str]:
        return [model.id for model in api.list_models(**options)]

    assert found(search="TINY") == ["sample/tiny-bert", "sample/tiny-gpt"]
    assert found(author="team") == ["team/names"]
    assert found(filter="gpt2") == ["sample/tiny-gpt"]
    assert found(sort="downloads", limit=2) == ["sample/tiny-bert", "sample/tiny-gpt"]
    assert found(search="nothing like it") == []


def test_search_over_more_than_one_page(tmp_path: Path) -> None:
    ids = [f"team/model-{at:02}" for at in range(10)]
    for model_id in ids:
        make_model(tmp_path, model_id, {"config.json": b"{}"})
    with FaultHub(tmp_path, page_size=3) as hub:
        api = HfApi(endpoint=hub.url, token=False)
        assert [model.id for model in api.list_models(full=True)] == ids
        assert [model.id for model in api.list_models(sort="likes", limit=5)] == ids[::-1][:5]
        assert len(hub.seen()) == 4 + 2


def test_what_is_not_there_is_told_apart(hub: FaultHub, api: HfApi, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("sample/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("sample/tiny-bert", revision="none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("sample/tiny-bert", revision="0" * 40)
    with pytest.raises(RemoteEntryNotFoundError):
        hf_hub_download("sample/tiny-bert", "none", endpoint=hub.url, token=False, cache_dir=tmp_path)


def test_a_hub_with_tokens(models: Path, tmp_path: Path) -> None:
    with FaultHub(models, tokens=["secret-1", "secret-2"]) as hub:
        for token in (False, "wrong"):
            with pytest.raises(GatedRepoError):
                HfApi(endpoint=hub.url, token=token).model_info("sample/tiny-bert")
        assert HfApi(endpoint=hub.url, token="secret-2").model_info("sample/tiny-bert").sha
        hf_hub_download(
            "sample/tiny-bert", "config.json", endpoint=hub.url, token="secret-1", cache_dir=tmp_path
        )
        assert httpx.get(f"{hub.url}/healthz", trust_env=False).status_code == 200
