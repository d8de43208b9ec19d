"""What a service says about settings that it cannot use."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from manager.settings import Settings as ManagerSettings
from proxy_client.configuration import read_toml
from proxy_client.errors import BadRequest
from storage_proxy.settings import PREFIX, Settings

PROXY = """\
[proxy]
name = "east"
database-file = "secrets/database"
secret-file = "/run/secrets/proxy"
manager-url = "http://127.0.0.1:8080"

[volume.volume1]
path = "../volumes/one"

[volume."v.2-b"]
path = "/mnt/two"

[artifact-registries.hub]
url = "https://hub.example.org"
"""
MANAGER = """\
[manager]
database-file = "database"

[storage-proxies.east]
url = "http://127.0.0.1:6121"
secret-file = "secret"

[reservoir]
proxy = "east"
download = "a"
verify = "a"
archive = "a"

[artifact-registry]
default = "hub"
proxy = "east"

[artifact-registries.hub]
url = "https://hub.example.org"

[vfolder]
default-host = "east:volume1"
"""


def read(directory: Path, text: str, environment: Mapping[str, str] | None = None) -> Settings:
    file = directory / "proxy.toml"
    file.write_text(text)
    return read_toml(file, Settings, PREFIX, environment or {}).settings


def refused(directory: Path, text: str, environment: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(BadRequest) as raised:
        read(directory, text, environment)
    return raised.value.message.replace(f"{directory}/", "").splitlines()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('name = "east"', 'nmae = "east"', ["proxy.toml:1: proxy.name: is missing; add it: Name of", "proxy.toml:2: proxy.nmae: is not a setting; did you mean name?"]),
        ("[volume.volume1]", "[volumes.volume1]", ["proxy.toml:7: volumes: is not a setting; did you mean volume?"]),
        ('name = "east"', 'name = "east"\nzzz = 1', ["proxy.toml:3: proxy.zzz: is not a setting; known here: auth"]),
        ('path = "/mnt/two"', "", ["proxy.toml:10: volume.v.2-b.path: is missing; add it: Mount point."]),
        ('name = "east"', "name = 7", ["proxy.toml:2: proxy.name: input should be a valid string; what belongs"]),
        ('name = "east"', 'name = "a:b"', ["proxy.toml:2: proxy.name: is not written as it should be; what"]),
        ('name = "east"', 'listen = "6121"\nname = "east"', ["proxy.toml:2: proxy.listen: write HOST:PORT, as 1"]),
        ('name = "east"', 'listen = ":80"\nname = "east"', ["proxy.toml:2: proxy.listen: write HOST:PORT"]),
        ('name = "east"', 'listen = "h:65536"\nname = "east"', ["proxy.toml:2: proxy.listen: write HOST:PORT"]),
        ("http://127.0.0.1:8080", "127.0.0.1", ["proxy.toml:5: proxy.manager-url: is not written as it should be; what belongs here: W"]),
        ("[proxy]", "[worker]\nconcurrency = 1\n[proxy]", ["proxy.toml:2: worker.concurrency: input should be gr"]),
        ("[proxy]", 'worker = "x"\n[proxy]', ["proxy.toml:1: worker: is a table; write its settings below"]),
        ("[proxy]", "transfer = 3\n[proxy]", ["proxy.toml:1: transfer: is a table; write its settings below"]),
        ("[proxy]", "artifact-storages = 3\n[proxy]", ["proxy.toml:1: artifact-storages: is a table; write"]),
        ("[volume.volume1]", '[volume."a b"]', ["proxy.toml:7: volume.a b: is no name; letters, digits"]),
        ('path = "/mnt/two"', 'path = "/x"\nbackend = "nfs"', ["proxy.toml:12: volume.v.2-b.backend: input should be 'vfs'"]),
        ("[proxy]", "[proxy", ["proxy.toml:1:7: this is no valid TOML: Expected ']' at the end"]),
        ("[proxy]", "[proxy]\nx = \n", ["proxy.toml:2:5: this is no valid TOML: Invalid value"]),
        ("[proxy]", "[proxy]\nname = 'west'", ["proxy.toml:3:14: this is no valid TOML: Cannot overwrite a value"]),
        (PROXY[: PROXY.index("[volume.v")], "", ["proxy.toml: proxy: is missing; add it"]),
    ],
)  # fmt: skip
def test_each_fault_names_its_line_and_the_remedy(
    tmp_path: Path, old: str, new: str, told: list[str]
) -> None:
    assert old in PROXY
    lines = refused(tmp_path, PROXY.replace(old, new, 1))
    assert len(lines) == len(told)
    for line, start in zip(lines, told, strict=True):
        assert line.startswith(start)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = (
        PROXY.replace('name = "east"', "name = 1").replace('"/mnt/two"', "2") + "[transfer]\nretries = -1\n"
    )
    assert [line.split(": ")[0] for line in refused(tmp_path, text)] == [
        "proxy.toml:2",
        "proxy.toml:16",
        "proxy.toml:11",
    ]


def test_a_file_that_is_not_there_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"none\.toml: there is no such file; give its path with --config"):
        read_toml(tmp_path / "none.toml", Settings, PREFIX, {})


def test_a_file_that_is_no_text_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadRequest, match=r"x\.toml: is not UTF-8"):
        read_toml(tmp_path / "x.toml", Settings, PREFIX, {})


def test_a_proxy_with_nothing_to_write_to_is_told_what_to_name(tmp_path: Path) -> None:
    text = PROXY.partition("[volume.")[0]
    assert refused(tmp_path, text) == [
        "proxy.toml: name at least one [volume.NAME] or [artifact-storages.NAME]"
    ]


def test_every_name_that_leads_nowhere_is_told_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "manager.toml"
    file.write_text(
        MANAGER.replace('"hub"', '"hug"')
        .replace("east:v", "west:v")
        .replace('proxy = "east"', "proxy = 'w'", 1)
    )
    with pytest.raises(BadRequest) as raised:
        read_toml(file, ManagerSettings, "STOWAGE_MANAGER", {})
    assert raised.value.message.replace(f"{tmp_path}/", "").splitlines() == [
        "manager.toml:9: reservoir.proxy: names the storage proxy 'w'; add [storage-proxies.w] or correct it",
        "manager.toml:22: vfolder.default-host: names the storage proxy 'west'; add [storage-proxies.west] or correct it",
        "manager.toml:15: artifact-registry.default: names the registry 'hug'; add [artifact-registries.hug] or correct it",
    ]


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = read(tmp_path, PROXY, {"STOWAGE_PROXY__PROXY__SECRET_FILE": "s"})
    assert settings.proxy.database_file == tmp_path / "secrets/database"
    assert settings.proxy.secret_file == tmp_path / "s"
    assert settings.volume["volume1"].path.resolve() == tmp_path.parent / "volumes/one"
    assert settings.volume["v.2-b"].path == Path("/mnt/two")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        PROXY,
        {
            "STOWAGE_PROXY__PROXY__NAME": "west",
            "STOWAGE_PROXY__WORKER__CONNECTIONS_PER_HOST": "8",
            "STOWAGE_PROXY__TRANSFER__STALL_TIMEOUT": "2.5",
            "STOWAGE_PROXY__VOLUME__V_2_B__PATH": "/elsewhere",
            "STOWAGE_PROXY__ARTIFACT_REGISTRIES__HUB__TOKEN_FILE": "/t",
            "STOWAGE_PROXY__PROXY__LISTEN": "",
            "STOWAGE_PROXYLIKE": "x",
        },
    )
    assert settings.proxy.name == "west"
    assert settings.worker.connections_per_host == 8
    assert settings.transfer.stall_timeout == 2.5
    assert settings.volume["v.2-b"].path == Path("/elsewhere")
    assert settings.artifact_registries["hub"].token_file == Path("/t")
    assert settings.proxy.listen == "127.0.0.1:6121"


@pytest.mark.parametrize(
    "variable",
    [
        "PROXY__NMAE",
        "PROXY",
        "PROXY__NAME__X",
        "VOLUME__VOLUME3__PATH",
        "VOLUME__VOLUME1",
        "VOLUME",
        "PRXY__NAME",
        "",
    ],
)
def test_a_variable_that_names_no_setting_is_refused(tmp_path: Path, variable: str) -> None:
    (line,) = refused(tmp_path, PROXY, {f"STOWAGE_PROXY__{variable}": "x"})
    assert line.startswith(f"environment: STOWAGE_PROXY__{variable}: names no setting of this service")


def test_a_wrong_value_of_the_environment_is_told_with_its_variable(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, PROXY, {"STOWAGE_PROXY__WORKER__CONCURRENCY": "many"})
    assert line.startswith("environment: STOWAGE_PROXY__WORKER__CONCURRENCY: input should be a valid integer")
    assert "Imports that one worker runs side by side" in line
