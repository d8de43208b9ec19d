"""What lies in the directory of an embedded stack, and the configuration that is written there."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

PROXY, VOLUME, STORAGE, REGISTRY = "local", "volume1", "archive", "huggingface"
PROXY_SCHEMA = "stowage_proxy"
YOURS = "# Below this line is yours: `stowage up` keeps it, and writes what stands above it anew."

Value = str | int | Path | list[Path]


def default_data_dir() -> Path:
    """Return where the stack lies when nobody says: STOWAGE_DATA_DIR, else `stowage` in the user's data directory."""
    if named := os.environ.get("STOWAGE_DATA_DIR"):
        return Path(named)
    # https://specifications.freedesktop.org/basedir-spec/: a path that is not absolute is to be ignored.
    home = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (home if home.is_absolute() else Path.home() / ".local" / "share") / "stowage"


class DataDir:
    """The paths below one directory, which may hold other files too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = path / "lock"
        self.state = path / "stack.json"
        self.admin_token = path / "admin-token"
        self.postgres = path / "postgres"
        self.volume = path / "volumes" / VOLUME
        self.storage = path / "artifact-storage"
        self.storage_root = path / "artifact-storages"
        self.hub = path / "hub"
        self.logs = path / "logs"
        self.secrets = path / "secrets"
        self.registry_token = self.secrets / "registry-token"
        self.manager_config = path / "manager.toml"
        self.proxy_config = path / "storage-proxy.toml"

    def make(self) -> None:
        """Make what is missing, for this user alone; what is there keeps its mode."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (
            *(self.volume.parent, self.volume, self.storage, self.storage_root),
            *(self.logs, self.secrets),
        ):
            folder.mkdir(mode=0o700, exist_ok=True)

    def write_secrets(self, database_url: str) -> None:
        """Write what the services read at their start; the administrator's token, the proxy's secret and the key stay."""
        if not _holds_text(self.admin_token):
            write_secret(self.admin_token, f"stw_{secrets.token_urlsafe(32)}")
        if not _holds_text(self.secrets / "proxy"):
            write_secret(self.secrets / "proxy", secrets.token_urlsafe(32))
        if not _holds_text(self.secrets / "manager-key"):
            write_secret(self.secrets / "manager-key", secrets.token_urlsafe(32))
        write_secret(self.secrets / "database-url", database_url)

    def write_registry_token(self, token: str) -> None:
        """Write the registry's token; an empty one takes away what is there."""
        if token:
            write_secret(self.registry_token, token)
        else:
            self.registry_token.unlink(missing_ok=True)

    def write_configuration(
        self, *, manager_listen: str, manager_url: str, proxy_port: int, registry_url: str, has_token: bool
    ) -> None:
        """Write both services' TOML files, keeping what the operator added (see `YOURS`)."""
        proxy_address = f"127.0.0.1:{proxy_port}"
        database = self.secrets / "database-url"
        registry = {"type": "huggingface", "url": registry_url}
        write_configuration(
            self.manager_config,
            {
                "manager": {
                    "listen": manager_listen,
                    "database-file": database,
                    "key-file": self.secrets / "manager-key",
                },
                f"storage-proxies.{PROXY}": {
                    "url": f"http://{proxy_address}",
                    "secret-file": self.secrets / "proxy",
                },
                "reservoir": {"proxy": PROXY, "download": STORAGE, "verify": STORAGE, "archive": STORAGE},
                "artifact-registry": {"default": REGISTRY, "proxy": PROXY},
                f"artifact-registries.{REGISTRY}": registry,
                "vfolder": {"default-host": f"{PROXY}:{VOLUME}"},
            },
        )
        token = {"token-file": self.registry_token} if has_token else {}
        write_configuration(
            self.proxy_config,
            {
                "proxy": {
                    "name": PROXY,
                    "listen": proxy_address,
                    "database-file": database,
                    "database-schema": PROXY_SCHEMA,
                    "secret-file": self.secrets / "proxy",
                    "manager-url": manager_url,
                    "storage-roots": [self.storage_root],
                },
                f"volume.{VOLUME}": {"backend": "vfs", "path": self.volume},
                f"artifact-storages.{STORAGE}": {"type": "vfs", "path": self.storage},
                f"artifact-registries.{REGISTRY}": {**registry, **token},
            },
        )


def write_configuration(path: Path, tables: Mapping[str, Mapping[str, Value]]) -> None:
    """Write a TOML file and keep what stands below the line `YOURS`; a file without that line is left alone."""
    try:
        present = path.read_text()
    except FileNotFoundError:
        present = YOURS + "\n"
    _ours, line, theirs = present.partition(YOURS)
    if not line:
        return
    parts = [
        "# Written by `stowage up`. Take out the line that says what is yours to keep all of it as it is.\n"
    ]
    for name, values in tables.items():
        lines = [f"{key} = {_toml(value)}\n" for key, value in values.items()]
        parts.append(f"[{name}]\n{''.join(lines)}")
    wanted = "\n".join(parts) + "\n" + YOURS + theirs
    if wanted != present or not path.exists():
        replace_text(path, wanted)


def write_secret(path: Path, value: str) -> None:
    """Write a line to a file that only this user reads (0600); it is there whole or not at all."""
    replace_text(path, f"{value}\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file that is there whole or as it was before; its mode is 0600."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _toml(value: Value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # A TOML basic string is a JSON string, but for surrogate pairs.
    return str(value) if isinstance(value, int) else json.dumps(str(value), ensure_ascii=False)


def _holds_text(path: Path) -> bool:
    try:
        return bool(path.read_text().strip())
    except FileNotFoundError:
        return False
