import stat
import tomllib
from pathlib import Path

import pytest

from manager.settings import load_settings as load_manager
from proxy_client.errors import BadRequest
from storage_proxy.settings import load_settings as load_proxy
from stowage.data_dir import YOURS, DataDir, default_data_dir
from stowage.processes import free_port
from stowage.stack import StackOptions


@pytest.fixture
def data(tmp_path: Path) -> DataDir:
    data = DataDir(tmp_path / 'a "quoted" é place')
    data.make()
    return data


def configure(data: DataDir, *, proxy_port: int = 2) -> None:
    data.write_configuration(
        manager_listen="127.0.0.1:1",
        manager_url="http://127.0.0.1:1",
        proxy_port=proxy_port,
        registry_url="https://hub.example.org",
        has_token=True,
    )


def test_both_services_accept_what_is_written(data: DataDir) -> None:
    data.write_secrets("postgresql://u:p@127.0.0.1:5/stowage")
    data.write_registry_token("hf_token")
    configure(data)

    manager, proxy = load_manager(data.manager_config), load_proxy(data.proxy_config)

    assert manager.storage_proxies["local"].secrets == proxy.secrets
    assert manager.database_url == proxy.database_url == "postgresql://u:p@127.0.0.1:5/stowage"
    assert manager.keys
    assert manager.reservoir is not None
    assert {manager.reservoir.download, manager.reservoir.verify, manager.reservoir.archive} == {"archive"}
    assert proxy.volume["volume1"].path == data.volume
    token_file = proxy.artifact_registries["huggingface"].token_file
    assert token_file is not None
    assert token_file.read_text() == "hf_token\n"


def test_what_the_operator_added_below_the_line_is_kept(data: DataDir) -> None:
    configure(data)
    with data.proxy_config.open("a") as file:
        file.write("[transfer]\nretries = 7\n")

    configure(data, proxy_port=3)

    proxy = load_proxy(data.proxy_config)
    assert (proxy.proxy.listen, proxy.transfer.retries) == ("127.0.0.1:3", 7)


def test_a_file_without_the_line_is_the_operators_own(data: DataDir) -> None:
    configure(data)
    own = data.proxy_config.read_text().replace(YOURS, "")
    data.proxy_config.write_text(own)

    configure(data, proxy_port=3)

    assert data.proxy_config.read_text() == own


def test_secrets_are_made_once_and_a_registrys_token_can_be_taken_away(data: DataDir) -> None:
    data.write_secrets("postgresql://one")
    data.write_registry_token("hf_token")
    lasting = [data.admin_token, data.secrets / "proxy", data.secrets / "manager-key"]
    kept = [path.read_text() for path in lasting]
    assert len(set(kept)) == len(kept)
    data.write_secrets("postgresql://two")
    data.write_registry_token("")

    assert [path.read_text() for path in lasting] == kept
    assert not (data.secrets / "registry-token").exists()
    assert (data.secrets / "database-url").read_text() == "postgresql://two\n"


def test_a_directory_that_is_there_keeps_its_mode_and_what_we_make_is_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    data = DataDir(tmp_path)
    data.make()

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    made = (data.secrets, data.logs, data.volume, data.storage)
    assert [stat.S_IMODE(path.stat().st_mode) for path in made] == [0o700] * 4


def test_the_configuration_is_the_owners_alone(data: DataDir) -> None:
    configure(data)

    assert stat.S_IMODE(data.proxy_config.stat().st_mode) == 0o600
    assert tomllib.loads(data.manager_config.read_text())["manager"]["listen"] == "127.0.0.1:1"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"STOWAGE_DATA_DIR": "/srv/a", "XDG_DATA_HOME": "/srv/b", "HOME": "/home/c"}, "/srv/a"),
        ({"XDG_DATA_HOME": "/srv/b", "HOME": "/home/c"}, "/srv/b/stowage"),
        ({"XDG_DATA_HOME": "not/absolute", "HOME": "/home/c"}, "/home/c/.local/share/stowage"),
        ({"HOME": "/home/c"}, "/home/c/.local/share/stowage"),
    ],
)
def test_the_default_directory_comes_from_the_environment(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STOWAGE_DATA_DIR", "XDG_DATA_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert default_data_dir() == Path(expected)


@pytest.mark.parametrize(
    ("environment", "endpoint", "token"),
    [
        ({}, None, None),
        ({"HF_ENDPOINT": "", "HF_TOKEN": ""}, None, ""),
        (
            {"HF_ENDPOINT": "http://127.0.0.1:80/x/", "HF_TOKEN": " hf_1\n"},
            "http://127.0.0.1:80/x",
            "hf_1",
        ),
    ],
)
def test_the_registry_comes_from_the_environment(
    environment: dict[str, str], endpoint: str | None, token: str | None
) -> None:
    options = StackOptions.from_environment(Path("d"), "h", 1, sample_hub=False, environment=environment)

    assert (options.endpoint, options.token) == (endpoint, token)
    assert "hf_1" not in repr(options)


def test_the_sample_hub_gets_no_token() -> None:
    environment = {"HF_TOKEN": "hf_1"}

    assert (
        StackOptions.from_environment(Path("d"), "h", 1, sample_hub=True, environment=environment).token
        is None
    )


@pytest.mark.parametrize(
    "endpoint", ["hub.example.org", "https://", "https://user:pw@hub.example.org", "file:///x"]
)
def test_what_is_no_endpoint_is_refused_without_repeating_it(endpoint: str) -> None:
    with pytest.raises(BadRequest) as refused:
        StackOptions.from_environment(
            Path("d"), "h", 1, sample_hub=False, environment={"HF_ENDPOINT": endpoint}
        )

    assert refused.value.field == "HF_ENDPOINT"
    assert "pw" not in refused.value.message


def test_ports_that_are_kept_lie_below_those_of_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert {free_port() < lowest for _ in range(20)} == {True}
