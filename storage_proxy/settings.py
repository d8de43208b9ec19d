"""The storage proxy's configuration: one TOML file, read once at start."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, IPvAnyNetwork, Tag, model_validator

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
from storage_proxy.verifiers.policy import AllowPickle, Limits, Policy, RemoteCode
from storage_proxy.verifiers.sandbox import MEMORY, Sandbox
from storage_proxy.verifiers.suite import OPTIONAL, REQUIRED, Suite, load_suite

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
    storage_roots: list[Path] = Field(
        default_factory=list,
        description="Directories beneath which administrators may enter VFS storages at the manager; none without it.",
        examples=[["artifact-storages"]],
    )
    authorize_deadline: Seconds = Field(
        default=300.0, gt=0, description="How long an import waits for an unreachable manager, then fails."
    )


class WorkerSection(Section):
    """`[worker]`: how imports run."""

    concurrency: int = Field(default=4, ge=2, le=64, description="Imports that one worker runs side by side.")
    lease_seconds: Seconds = Field(
        default=4.0,
        ge=1,
        description="Silence after which another worker takes an import over; a killed worker's at once.",
    )
    max_attempts: int = Field(default=10, ge=1, description="Starts of one import before it fails for good.")
    connections: int = Field(
        default=64, ge=1, description="Connections for bytes at a time, shared by all workers of the proxy."
    )
    connections_per_host: int = Field(
        default=16, ge=1, description="Connections of one worker to one host at a time, at most."
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
    direct_io: bool = Field(
        default=True,
        description="Write what is large past the page cache, on ext4 and XFS: faster, and cold for whoever reads it next.",
    )


_LIMITS = Limits()


class VerificationSection(Section):
    """`[verification]`: who looks at files before they are published, and what they let through."""

    required: list[str] = Field(
        default=list(REQUIRED),
        min_length=1,
        description="Verifiers that must look at every file: integrity, structure, pickle, safetensors, picklescan, registry, clamav, yara, or one that another package brings.",
    )
    optional: list[str] = Field(
        default=list(OPTIONAL),
        description="Verifiers whose findings count as much, but that need not look at every file.",
    )
    allow_pickle: Literal["never", "allowlisted", "any"] = Field(
        default="allowlisted",
        description="Pickles that are published: none, those that name allowed globals only, or all.",
    )
    remote_code: Literal["allow", "flag", "block"] = Field(
        default="flag", description="What is done with a model that brings Python code for its loader."
    )
    publish_flagged: bool = Field(
        default=False, description="Publish what is flagged; else an administrator approves it first."
    )
    approval_timeout: Seconds = Field(
        default=604800.0,
        gt=0,
        description="Time in which a flagged import has to be approved, else it is rejected.",
    )
    processes: int = Field(
        default=2, ge=1, le=64, description="Limited processes of one worker in which files are parsed."
    )
    max_memory: Annotated[int, Unit("bytes")] = Field(
        default=MEMORY, ge=256 << 20, description="Address space of each of those processes."
    )
    max_seconds: Seconds = Field(
        default=_LIMITS.seconds, gt=0, description="Time for one file and one verifier."
    )
    max_depth: int = Field(
        default=_LIMITS.depth, ge=0, description="Containers and pickles within one another that are opened."
    )
    max_members: int = Field(default=_LIMITS.members, ge=1, description="Members of all archives in a file.")
    max_ratio: int = Field(
        default=_LIMITS.ratio, ge=2, description="Unpacked bytes for each packed one, above 1 MiB."
    )
    max_output: Annotated[int, Unit("bytes")] = Field(
        default=_LIMITS.output, ge=1 << 20, description="What is unpacked of one file, in all."
    )
    max_opcodes: int = Field(
        default=_LIMITS.opcodes, ge=1000, description="Opcodes of all pickles in one file."
    )
    clamav_socket: str = Field(
        default="/run/clamav/clamd.ctl",
        description="Where clamd listens: the path of a Unix socket, or HOST:PORT; for the verifier clamav.",
    )
    clamav_timeout: Seconds = Field(
        default=120.0, gt=0, description="Time in which clamd has to answer for one file."
    )
    yara_rules: Path | None = Field(
        default=None,
        description="File or directory of rules for the verifier yara, which must be set for it.",
        examples=["yara-rules"],
    )

    @model_validator(mode="after")
    def _rules_for_yara(self) -> "VerificationSection":
        if "yara" in [*self.required, *self.optional] and self.yara_rules is None:
            raise ValueError("the verifier yara needs yara-rules; add it, or do not name yara")
        return self

    @property
    def asks_registries(self) -> bool:
        """Whether registries are asked for their own word on the safety of files."""
        return "registry" in [*self.required, *self.optional]

    def load_suite(self) -> Suite:
        """Make the verifiers. Raises `BadRequest`."""
        arguments: dict[str, dict[str, Any]] = {
            "clamav": {"socket": self.clamav_socket, "timeout": self.clamav_timeout},
            "yara": {"rules": str(self.yara_rules)},
        }
        return load_suite(self.required, self.optional, arguments)

    def open_sandbox(self) -> Sandbox:
        """Return where verifiers parse files, for the event loop of the caller, who closes it."""
        return Sandbox(self.processes, self.max_memory)


class VolumeSection(Section):
    """`[volume.NAME]`: a mounted file system that holds vfolders."""

    backend: Literal["vfs"] = Field(default="vfs", description="Kind of file system.")
    path: Path = Field(description="Mount point.", examples=["volumes/volume1"])


class VFSStorageSection(Section):
    """`[artifact-storages.NAME]`: a pre-configured destination in a directory."""

    type: Literal["vfs"] = Field(default="vfs", description="Kind of storage.")
    path: Path = Field(description="Directory of the storage.", examples=["artifact-storage"])


class S3StorageSection(Section):
    """`[artifact-storages.NAME]`: a pre-configured destination in an S3 bucket."""

    type: Literal["s3"] = Field(description="Kind of storage.", examples=["s3"])
    endpoint: Annotated[str, Field(pattern=r"^https?://[^/?#@]+/?$")] = Field(
        description="Where the S3 API answers, http(s)://HOST[:PORT].",
        examples=["https://s3.eu-central-1.amazonaws.com"],
    )
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] = Field(
        description="Name of the bucket, which must exist.", examples=["models"]
    )
    prefix: Annotated[str, Field(pattern=r"^([^/\\]+(/[^/\\]+)*)?$", max_length=400)] = Field(
        default="",
        description="Folder in the bucket that the storage keeps to, as a/b; none is the whole bucket.",
    )
    region: str = Field(default="us-east-1", min_length=1, description="Region that requests are signed for.")
    addressing: Literal["path", "virtual-host"] = Field(
        default="path", description="Where the bucket's name stands: HOST/BUCKET or BUCKET.HOST."
    )
    access_key_file: Path | None = Field(
        default=None,
        description="File with the access key; without it, AWS_ACCESS_KEY_ID of the environment.",
        examples=["secrets/s3-access-key"],
    )
    secret_key_file: Path | None = Field(
        default=None,
        description="File with the secret key; without it, AWS_SECRET_ACCESS_KEY of the environment.",
        examples=["secrets/s3-secret-key"],
    )
    session_token_file: Path | None = Field(
        default=None,
        description="File with the token of temporary keys; without it, AWS_SESSION_TOKEN of the environment.",
        examples=["secrets/s3-session-token"],
    )
    ca_file: Path | None = Field(
        default=None,
        description="Certificates (PEM) that https is checked against, in place of the system's.",
        examples=["s3-ca.pem"],
    )
    part_size: Annotated[int, Unit("bytes")] = Field(
        default=16 << 20,
        ge=8 << 20,
        le=1 << 30,
        multiple_of=8 << 20,
        description="Least size of a part of a large upload; it grows with the file. A multiple of 8 MiB.",
    )
    parallel_parts: int = Field(
        default=4, ge=1, le=64, description="Parts on their way at a time; each is held in memory."
    )
    connect_timeout: Seconds = Field(
        default=10.0, gt=0, description="Time in which a connection has to be open."
    )
    stall_timeout: Seconds = Field(
        default=60.0, gt=0, description="Time without a byte after which a request is cut."
    )
    retries: int = Field(default=5, ge=0, description="Tries of a request after the first.")
    limit_bytes: Annotated[int | None, Unit("bytes")] = Field(
        default=None,
        ge=0,
        description="What the storage may hold, staging included; without it, there is no limit.",
        examples=[1 << 40],
    )
    abandoned_after: Seconds = Field(
        default=86400.0,
        gt=0,
        description="Age at which uploads and staged objects of no open import are removed.",
    )

    @model_validator(mode="after")
    def _both_keys(self) -> "S3StorageSection":
        if (self.access_key_file is None) != (self.secret_key_file is None):
            lacking = "access-key-file" if self.access_key_file is None else "secret-key-file"
            raise ValueError(f"{lacking} is missing; name both files, or neither")
        return self


_VFS, _S3 = "type=vfs", "type=s3"  # with a character that no name has: see `configuration`


def _kind_of_storage(section: Any) -> str:
    kind = section.get("type", "vfs") if isinstance(section, dict) else getattr(section, "type", "vfs")
    return f"type={kind}"


ArtifactStorageSection = Annotated[
    Annotated[VFSStorageSection, Tag(_VFS)] | Annotated[S3StorageSection, Tag(_S3)],
    Discriminator(
        _kind_of_storage,
        custom_error_type="kind_of_storage",
        custom_error_message='type is none that is known; write "vfs" or "s3"',
    ),
]


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
    ca_file: Path | None = Field(
        default=None,
        description="File with certificate authorities (PEM) that are trusted besides the usual ones.",
        examples=["secrets/registry-ca.pem"],
    )
    allowed_globals: list[Annotated[str, Field(pattern=r"^\S+ \S+$")]] = Field(
        default_factory=list,
        description="Globals that this registry's pickles may name besides those that are always allowed, each as a module and a name.",
        examples=[["transformers.training_args TrainingArguments"]],
    )
    private_addresses: list[IPvAnyNetwork] = Field(
        default_factory=list,
        description="Private networks that the registry's answers may lead to, besides its own address.",
        examples=[["10.20.0.0/16"]],
    )


class Settings(Section):
    """Everything in `storage-proxy.toml`."""

    proxy: ProxySection
    worker: WorkerSection = WorkerSection()
    transfer: TransferSection = TransferSection()
    verification: VerificationSection = VerificationSection()
    volume: dict[Name, VolumeSection] = Field(default_factory=dict, examples=["volume1"])
    artifact_storages: dict[Name, ArtifactStorageSection] = Field(
        default_factory=dict, examples=["archive", "bucket"]
    )
    artifact_registries: dict[Name, ArtifactRegistrySection] = Field(
        default_factory=dict, examples=["huggingface"]
    )

    @model_validator(mode="after")
    def _something_to_write_to(self) -> "Settings":
        if not self.volume and not self.artifact_storages:
            raise WrongSettings([Fault((), "name at least one [volume.NAME] or [artifact-storages.NAME]")])
        return self

    def policy(self, registry: str) -> Policy:
        """Return what verifiers judge the models of a registry by; one that is not configured allows nothing more."""
        section, source = self.verification, self.artifact_registries.get(registry)
        return Policy(
            allow_pickle=AllowPickle(section.allow_pickle),
            allowed_globals=frozenset(
                (module, name)
                for module, name in (text.split(" ") for text in (source.allowed_globals if source else ()))
            ),
            remote_code=RemoteCode(section.remote_code),
            publish_flagged=section.publish_flagged,
            limits=Limits(
                depth=section.max_depth,
                members=section.max_members,
                ratio=section.max_ratio,
                output=section.max_output,
                opcodes=section.max_opcodes,
                seconds=section.max_seconds,
            ),
        )

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
        for path, file in self.storage_secrets():
            read_value(file, ".".join(path))

    def storage_secrets(self) -> Iterator[tuple[tuple[str, ...], Path]]:
        """Yield the files with the secrets of artifact storages, each with the path of its setting."""
        for name, storage in self.artifact_storages.items():
            if isinstance(storage, S3StorageSection):
                for key in ("access-key-file", "secret-key-file", "session-token-file"):
                    file: Path | None = getattr(storage, key.replace("-", "_"))
                    if file is not None:
                        yield ("artifact-storages", name, key), file


def read_settings(path: Path) -> Configuration[Settings]:
    """Read the file and the environment. Raises `BadRequest` that names each wrong setting, its place and the remedy."""
    return read_toml(path, Settings, PREFIX)


def load_settings(path: Path) -> Settings:
    """Read the settings alone; see `read_settings`."""
    return read_settings(path).settings
