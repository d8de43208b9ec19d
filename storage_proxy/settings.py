"""The storage proxy's configuration: one TOML file, read once at start."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from proxy_client.configuration import (
    Configuration,
    Fault,
    Listen,
    Section,
    Unit,
    WrongSettings,
    read_toml,
    read_value,
)
from proxy_client.wire import Name

PREFIX = "STOWAGE_PROXY"
Seconds = Annotated[float, Unit("seconds")]


class ProxySection(Section):
    """`[proxy]`: who this proxy is and where its parts are."""

    name: Name = Field(
        description="Name of this proxy: the first half of a vfolder host.", examples=["local"]
    )
    listen: Listen = Field(default="127.0.0.1:6121", description="HOST:PORT of the API.")
    database_file: Path = Field(
        description="File with the PostgreSQL URL of the database that holds the proxy's own schema.",
        examples=["secrets/proxy-database-url"],
    )
    database_schema: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,29}$")] = Field(
        default="stowage_proxy",
        description="Schema of the proxy's tables; one for each proxy in a shared database.",
    )
    secret_file: Path = Field(
        description="File with the secret that the manager shows; a second line is accepted too.",
        examples=["secrets/proxy-secret"],
    )
    manager_url: Annotated[str, Field(pattern=r"^https?://[^/?#]+/?$")] = Field(
        description="Where the manager answers authorize calls, http(s)://HOST:PORT.",
        examples=["http://127.0.0.1:8080"],
    )
    authorize_deadline: Seconds = Field(
        default=300.0, gt=0, description="How long an import waits for an unreachable manager, then fails."
    )


class WorkerSection(Section):
    """`[worker]`: how imports run."""

    concurrency: int = Field(default=4, ge=2, le=64, description="Imports that one worker runs side by side.")
    files_per_import: int = Field(
        default=8, ge=1, le=64, description="Files of one import that download side by side."
    )
    lease_seconds: Seconds = Field(
        default=4.0,
        ge=1,
        description="Silence after which another worker takes an import over; a killed worker's at once.",
    )
    max_attempts: int = Field(default=10, ge=1, description="Starts of one import before it fails for good.")
    connections_per_host: int = Field(
        default=16, ge=1, description="Connections of one worker to one host at a time."
    )


class TransferSection(Section):
    """`[transfer]`: patience with registries."""

    connect_timeout: Seconds = Field(
        default=10.0, gt=0, description="Time in which a connection has to be open."
    )
    stall_timeout: Seconds = Field(
        default=30.0, gt=0, description="Time without a byte after which a transfer is cut."
    )
    minimum_rate: Annotated[int, Unit("bytes per second")] = Field(
        default=65536, ge=0, description="Rate, over rate-window, below which a transfer is cut."
    )
    rate_window: Seconds = Field(
        default=60.0, gt=0, description="Time over which the minimum rate is measured."
    )
    retries: int = Field(
        default=5, ge=0, description="Tries after the first, without progress, before an import fails."
    )
    backoff_initial: Seconds = Field(
        default=0.5, gt=0, description="Pause before the first retry; doubles each time."
    )
    backoff_max: Seconds = Field(default=30.0, gt=0, description="Longest pause between retries.")
    retry_after_max: Seconds = Field(default=300.0, gt=0, description="Longest Retry-After that is honoured.")


class VolumeSection(Section):
    """`[volume.NAME]`: a mounted file system that holds vfolders."""

    backend: Literal["vfs"] = Field(default="vfs", description="Kind of file system.")
    path: Path = Field(description="Mount point.", examples=["volumes/volume1"])


class ArtifactStorageSection(Section):
    """`[artifact-storages.NAME]`: a pre-configured destination."""

    type: Literal["vfs"] = Field(default="vfs", description="Kind of storage.")
    path: Path = Field(description="Directory of a vfs storage.", examples=["artifact-storage"])


class ArtifactRegistrySection(Section):
    """`[artifact-registries.NAME]`: where models come from."""

    type: Literal["huggingface"] = Field(default="huggingface", description="Protocol of the registry.")
    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+(/[^?#]*)?$")] = Field(
        description="Endpoint, http(s)://HOST; used for every call.", examples=["https://huggingface.co"]
    )
    token_file: Path | None = Field(
        default=None,
        description="File with the access token, if the registry wants one.",
        examples=["secrets/registry-token"],
    )


class Settings(Section):
    """Everything in `storage-proxy.toml`."""

    proxy: ProxySection
    worker: WorkerSection = WorkerSection()
    transfer: TransferSection = TransferSection()
    volume: dict[Name, VolumeSection] = Field(default_factory=dict, examples=["volume1"])
    artifact_storages: dict[Name, ArtifactStorageSection] = Field(default_factory=dict, examples=["archive"])
    artifact_registries: dict[Name, ArtifactRegistrySection] = Field(
        default_factory=dict, examples=["huggingface"]
    )

    @model_validator(mode="after")
    def _something_to_write_to(self) -> "Settings":
        if not self.volume and not self.artifact_storages:
            raise WrongSettings([Fault((), "name at least one [volume.NAME] or [artifact-storages.NAME]")])
        return self

    @property
    def database_url(self) -> str:
        """The PostgreSQL URL of the proxy's own tables. Raises `Unavailable`."""
        return read_value(self.proxy.database_file, "proxy.database-file")

    @property
    def secrets(self) -> list[str]:
        """The secrets that callers may show, at most two; the first is the one shown to the manager. Raises `Unavailable`."""
        return read_value(self.proxy.secret_file, "proxy.secret-file").split()[:2]

    def check_secrets(self) -> None:
        """Read what a service needs at its start and later. Raises `Unavailable`."""
        _ = self.database_url, self.secrets
        for name, registry in self.artifact_registries.items():
            if registry.token_file is not None:
                read_value(registry.token_file, f"artifact-registries.{name}.token-file")


def read_settings(path: Path) -> Configuration[Settings]:
    """Read the file and the environment. Raises `BadRequest` that names each wrong setting, its place and the remedy."""
    return read_toml(path, Settings, PREFIX)


def load_settings(path: Path) -> Settings:
    """Read the settings alone; see `read_settings`."""
    return read_settings(path).settings
