"""The manager's configuration: one TOML file, read once at start."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from proxy_client.configuration import Section, read_toml
from proxy_client.wire import Name


class ManagerSection(Section):
    """`[manager]`: where the manager listens and keeps its rows."""

    listen: str = Field(default="127.0.0.1:8080", description="HOST:PORT of GraphQL and the pages.")
    database_file: Path = Field(description="File with the PostgreSQL URL of the manager's database.")
    database_pool: int = Field(default=10, ge=2, description="Connections of one manager process.")


class StorageProxySection(Section):
    """`[storage-proxies.NAME]`: a storage proxy; NAME is the first half of its vfolder hosts."""

    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+/?$")] = Field(description="Where its API answers.")
    secret_file: Path = Field(
        description="File with the secret shared with it; a second line is accepted too."
    )

    @property
    def secrets(self) -> list[str]:
        """The secrets that this proxy may show, at most two; the first is the one shown to it."""
        return self.secret_file.read_text().split()[:2]


class ReservoirSection(Section):
    """`[reservoir]`: the artifact storages that each step of an import without a vfolder uses."""

    proxy: Name = Field(description="The storage proxy that holds them.")
    download: Name = Field(description="Artifact storage of the step DOWNLOAD.")
    verify: Name = Field(description="Artifact storage of the step VERIFY.")
    archive: Name = Field(description="Artifact storage of the step ARCHIVE: where the files end.")


class ArtifactRegistrySection(Section):
    """`[artifact-registry]`: how models are found."""

    default: Name = Field(description="The registry of a scan that names none.")
    proxy: Name = Field(description="The storage proxy that asks registries on the manager's behalf.")


class RegistrySection(Section):
    """`[artifact-registries.NAME]`: a registry; the proxies know the same name with endpoint and token."""

    type: Literal["huggingface", "reservoir"] = Field(
        default="huggingface", description="Protocol of the registry."
    )
    url: str = Field(description="Endpoint, as shown to users.")


class VFolderSection(Section):
    """`[vfolder]`: what new vfolders get."""

    default_host: Annotated[str, Field(pattern=r"^[^:]+:[^:]+$")] = Field(
        description="PROXY:VOLUME of a folder without host."
    )


class ReconcilerSection(Section):
    """`[reconciler]`: how open imports are followed; in seconds."""

    order_interval: float = Field(
        default=1.0, gt=0, description="Pause between looks for orders without an answer."
    )
    reconnect_delay: float = Field(
        default=1.0, gt=0, description="Pause before a broken event stream is opened again."
    )
    silence_limit: float = Field(
        default=30.0, gt=0, description="Silence after which the state of an open import is asked for."
    )


class Settings(Section):
    """Everything in `manager.toml`."""

    manager: ManagerSection
    storage_proxies: dict[Name, StorageProxySection]
    reservoir: ReservoirSection | None = None
    artifact_registry: ArtifactRegistrySection | None = None
    artifact_registries: dict[Name, RegistrySection] = Field(default_factory=dict)
    vfolder: VFolderSection | None = None
    reconciler: ReconcilerSection = ReconcilerSection()

    @model_validator(mode="after")
    def _names_are_known(self) -> "Settings":
        proxies = self.storage_proxies
        if not proxies:
            raise ValueError("name at least one [storage-proxies.NAME]")
        asked = {
            "reservoir.proxy": self.reservoir and self.reservoir.proxy,
            "artifact-registry.proxy": self.artifact_registry and self.artifact_registry.proxy,
            "vfolder.default-host": self.vfolder and self.vfolder.default_host.partition(":")[0],
        }
        for where, proxy in asked.items():
            if proxy and proxy not in proxies:
                raise ValueError(
                    f"{where} names the storage proxy {proxy!r}; add [storage-proxies.{proxy}] or correct it"
                )
        if (chosen := self.artifact_registry) and chosen.default not in self.artifact_registries:
            raise ValueError(
                f"artifact-registry.default names {chosen.default!r}; add [artifact-registries.{chosen.default}]"
            )
        return self

    @property
    def database_url(self) -> str:
        """The PostgreSQL URL of the manager's database."""
        return self.manager.database_file.read_text().strip()


def load_settings(path: Path) -> Settings:
    """Read the file. Raises `BadRequest` that names the file, the setting and the remedy."""
    return read_toml(path, Settings)
