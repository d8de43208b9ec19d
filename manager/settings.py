"""The manager's configuration: one TOML file, read once at start."""

from collections.abc import Mapping
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
from proxy_client.errors import Unavailable
from proxy_client.wire import Name

PREFIX = "STOWAGE_MANAGER"
SHORTEST_KEY = 32
Seconds = Annotated[float, Unit("seconds")]


class ManagerSection(Section):
    """`[manager]`: where the manager listens and keeps its rows."""

    listen: Listen = Field(default="127.0.0.1:8080", description="HOST:PORT of GraphQL and the pages.")
    database_file: Path = Field(
        description="File with the PostgreSQL URL of the manager's database.",
        examples=["secrets/manager-database-url"],
    )
    database_pool: int = Field(default=10, ge=2, description="Connections of one manager process.")
    page: bool = Field(
        default=True, description="Whether browsers find the Model Store page at `/`, and may sign in to it."
    )
    trusted_proxies: str = Field(
        default="127.0.0.1",
        description="Addresses or networks of reverse proxies, with commas between them, whose X-Forwarded-Proto is believed: "
        "it says whether browsers may send the page's cookie over https alone. `*` is all.",
        examples=["10.0.0.0/8"],
    )
    graphiql: bool = Field(default=True, description="Whether browsers find GraphiQL at `/graphql`.")
    introspection: bool = Field(
        default=True, description="Whether clients may ask for the schema itself; GraphiQL needs it."
    )
    allowed_origins: list[Annotated[str, Field(pattern=r"^https?://[^/?#*]+$")]] = Field(
        default_factory=list,
        description="Other origins whose pages a browser lets call `/graphql`; none by default.",
        examples=[["https://portal.example.org"]],
    )
    operation_timeout: Seconds = Field(
        default=60.0, gt=0, description="Time after which a query or mutation is given up."
    )
    key_file: Path | None = Field(
        default=None,
        description="File with the key for secrets that are entered in GraphQL, 32 characters or more; older keys on "
        "further lines only decrypt. Without it no such secret is taken.",
        examples=["secrets/manager-key"],
    )


class StorageProxySection(Section):
    """`[storage-proxies.NAME]`: a storage proxy; NAME is the first half of its vfolder hosts."""

    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+/?$")] = Field(
        description="Where its API answers, http(s)://HOST:PORT.", examples=["http://127.0.0.1:6121"]
    )
    secret_file: Path = Field(
        description="File with the secret shared with it; a second line is accepted too.",
        examples=["secrets/proxy-secret"],
    )

    @property
    def secrets(self) -> list[str]:
        """The secrets that this proxy may show, at most two; the first is the one shown to it. Raises `Unavailable`."""
        return read_value(self.secret_file, "storage-proxies.NAME.secret-file").split()[:2]


class ReservoirSection(Section):
    """`[reservoir]`: the artifact storages that each step of an import without a vfolder uses."""

    proxy: Name = Field(description="The storage proxy that holds them.", examples=["local"])
    download: Name = Field(description="Artifact storage of the step DOWNLOAD.", examples=["archive"])
    verify: Name = Field(description="Artifact storage of the step VERIFY.", examples=["archive"])
    archive: Name = Field(
        description="Artifact storage of the step ARCHIVE: where the files end.", examples=["archive"]
    )

    def fault(self, kinds: Mapping[str, str]) -> Fault | None:
        """Return what is wrong with the storages; `kinds` are those of the proxy, vfs or s3, by name."""
        if kinds.get(self.verify, "vfs") == "vfs":
            return None
        return Fault(
            ("reservoir", "verify"),
            f"{self.verify} is an object storage, and verifiers need a file system; name an artifact storage of type vfs",
        )


class ArtifactRegistrySection(Section):
    """`[artifact-registry]`: how models are found."""

    default: Name = Field(description="The registry of a scan that names none.", examples=["huggingface"])
    proxy: Name = Field(
        description="The storage proxy that asks registries on the manager's behalf.", examples=["local"]
    )
    rescan_interval: Seconds = Field(
        default=0.0, ge=0, description="Age at which a known model is scanned again by itself; 0 is never."
    )


class RegistrySection(Section):
    """`[artifact-registries.NAME]`: a registry; the proxies know the same name with endpoint and token."""

    type: Literal["huggingface", "reservoir"] = Field(
        default="huggingface", description="Protocol of the registry."
    )
    url: str = Field(description="Endpoint, as shown to users.", examples=["https://huggingface.co"])


class VFolderSection(Section):
    """`[vfolder]`: what new vfolders get."""

    default_host: Annotated[str, Field(pattern=r"^[^:]+:[^:]+$")] = Field(
        description="PROXY:VOLUME of a folder without host.", examples=["local:volume1"]
    )


class ReconcilerSection(Section):
    """`[reconciler]`: how open imports are followed."""

    order_interval: Seconds = Field(
        default=1.0, gt=0, description="Pause between looks for orders without an answer."
    )
    reconnect_delay: Seconds = Field(
        default=1.0, gt=0, description="Pause before a broken event stream is opened again."
    )
    silence_limit: Seconds = Field(
        default=30.0, gt=0, description="Silence after which the state of an open import is asked for."
    )
    quota_interval: Seconds = Field(
        default=300.0,
        gt=0,
        description="Age at which the usage that a limited quota reported is asked for anew.",
    )


class Settings(Section):
    """Everything in `manager.toml`."""

    manager: ManagerSection
    storage_proxies: dict[Name, StorageProxySection] = Field(examples=["local"])
    reservoir: ReservoirSection | None = None
    artifact_registry: ArtifactRegistrySection | None = None
    artifact_registries: dict[Name, RegistrySection] = Field(default_factory=dict, examples=["huggingface"])
    vfolder: VFolderSection | None = None
    reconciler: ReconcilerSection = ReconcilerSection()

    @model_validator(mode="after")
    def _names_are_known(self) -> "Settings":
        proxies = self.storage_proxies
        if not proxies:
            raise WrongSettings([Fault(("storage-proxies",), "name at least one [storage-proxies.NAME]")])
        asked = {
            ("reservoir", "proxy"): self.reservoir and self.reservoir.proxy,
            ("artifact-registry", "proxy"): self.artifact_registry and self.artifact_registry.proxy,
            ("vfolder", "default-host"): self.vfolder and self.vfolder.default_host.partition(":")[0],
        }
        faults = [
            Fault(where, f"names the storage proxy {proxy!r}; add [storage-proxies.{proxy}] or correct it")
            for where, proxy in asked.items()
            if proxy and proxy not in proxies
        ]
        if (chosen := self.artifact_registry) and chosen.default not in self.artifact_registries:
            text = f"names the registry {chosen.default!r}; add [artifact-registries.{chosen.default}] or correct it"
            faults.append(Fault(("artifact-registry", "default"), text))
        if faults:
            raise WrongSettings(faults)
        return self

    @property
    def database_url(self) -> str:
        """The PostgreSQL URL of the manager's database. Raises `Unavailable`."""
        return read_value(self.manager.database_file, "manager.database-file")

    @property
    def keys(self) -> list[str]:
        """The keys for secrets in the database, the newest first; empty without `key-file`. Raises `Unavailable`."""
        if self.manager.key_file is None:
            return []
        keys = read_value(self.manager.key_file, "manager.key-file").split()
        if min(map(len, keys)) < SHORTEST_KEY:
            raise Unavailable(
                f"manager.key-file: a key has {SHORTEST_KEY} characters or more; write what openssl rand -base64 32 prints",
                field="manager.key-file",
            )
        return keys


def read_settings(path: Path) -> Configuration[Settings]:
    """Read the file and the environment. Raises `BadRequest` that names each wrong setting, its place and the remedy."""
    return read_toml(path, Settings, PREFIX)


def load_settings(path: Path) -> Settings:
    """Read the settings alone; see `read_settings`."""
    return read_settings(path).settings
