"""The storage proxy's configuration: one TOML file, read once at start."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from proxy_client.configuration import Section, read_toml
from proxy_client.wire import Name


class ProxySection(Section):
    """`[proxy]`: who this proxy is and where its parts are."""

    name: Name = Field(description="Name of this proxy: the first half of a vfolder host.")
    listen: str = Field(default="127.0.0.1:6121", description="HOST:PORT of the API.")
    database_file: Path = Field(description="File with the PostgreSQL URL of the proxy's own schema.")
    database_schema: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,29}$")] = Field(
        default="stowage_proxy",
        description="Schema of the proxy's tables; one for each proxy in a shared database.",
    )
    secret_file: Path = Field(
        description="File with the secret that the manager shows; a second line is accepted too."
    )
    manager_url: str = Field(description="Where the manager answers authorize calls.")
    authorize_deadline: float = Field(
        default=300.0, gt=0, description="Seconds to wait for an unreachable manager."
    )


class WorkerSection(Section):
    """`[worker]`: how imports run."""

    concurrency: int = Field(default=4, ge=2, le=64, description="Imports that one worker runs side by side.")
    files_per_import: int = Field(
        default=8, ge=1, le=64, description="Files of one import that download side by side."
    )
    lease_seconds: float = Field(
        default=4.0, ge=1, description="Silence after which another worker takes an import over."
    )
    max_attempts: int = Field(default=10, ge=1, description="Starts of one import before it fails for good.")
    connections_per_host: int = Field(
        default=16, ge=1, description="Connections of one worker to one host at a time."
    )


class TransferSection(Section):
    """`[transfer]`: patience with registries, in seconds and bytes."""

    connect_timeout: float = Field(default=10.0, gt=0, description="Seconds to open a connection.")
    stall_timeout: float = Field(
        default=30.0, gt=0, description="Seconds without a byte before a transfer is cut."
    )
    minimum_rate: int = Field(
        default=65536, ge=0, description="Bytes per second, over rate-window, below which it is cut."
    )
    rate_window: float = Field(
        default=60.0, gt=0, description="Seconds over which the minimum rate is measured."
    )
    retries: int = Field(
        default=5, ge=0, description="Tries after the first, without progress, before an import fails."
    )
    backoff_initial: float = Field(
        default=0.5, gt=0, description="Seconds before the first retry; doubles each time."
    )
    backoff_max: float = Field(default=30.0, gt=0, description="Longest pause between retries in seconds.")
    retry_after_max: float = Field(
        default=300.0, gt=0, description="Longest Retry-After that is honoured, in seconds."
    )


class VolumeSection(Section):
    """`[volume.NAME]`: a mounted file system that holds vfolders."""

    backend: Literal["vfs"] = Field(default="vfs", description="Kind of file system.")
    path: Path = Field(description="Mount point.")


class ArtifactStorageSection(Section):
    """`[artifact-storages.NAME]`: a pre-configured destination."""

    type: Literal["vfs"] = Field(default="vfs", description="Kind of storage.")
    path: Path = Field(description="Directory of a vfs storage.")


class ArtifactRegistrySection(Section):
    """`[artifact-registries.NAME]`: where models come from."""

    type: Literal["huggingface"] = Field(default="huggingface", description="Protocol of the registry.")
    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+(/[^?#]*)?$")] = Field(
        description="Endpoint; used for every call."
    )
    token_file: Path | None = Field(
        default=None, description="File with the access token, if the registry wants one."
    )


class Settings(Section):
    """Everything in `storage-proxy.toml`."""

    proxy: ProxySection
    worker: WorkerSection = WorkerSection()
    transfer: TransferSection = TransferSection()
    volume: dict[Name, VolumeSection] = Field(default_factory=dict)
    artifact_storages: dict[Name, ArtifactStorageSection] = Field(default_factory=dict)
    artifact_registries: dict[Name, ArtifactRegistrySection] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _something_to_write_to(self) -> "Settings":
        if not self.volume and not self.artifact_storages:
            raise ValueError("name at least one [volume.NAME] or [artifact-storages.NAME]")
        return self

    @property
    def database_url(self) -> str:
        """The PostgreSQL URL of the proxy's own tables."""
        return self.proxy.database_file.read_text().strip()

    @property
    def secrets(self) -> list[str]:
        """The secrets that callers may show, at most two; the first is the one shown to the manager."""
        return self.proxy.secret_file.read_text().split()[:2]


def load_settings(path: Path) -> Settings:
    """Read the file. Raises `BadRequest` that names the file, the setting and the remedy."""
    return read_toml(path, Settings)
