"""What an installation lets in: which verifiers must agree, which globals a pickle may name, how far a file is opened."""

import enum

from pydantic import BaseModel, ConfigDict

Global = tuple[str, str]
"""A module and a name in it, as a pickle writes them."""


class AllowPickle(enum.StrEnum):
    """Whether a file that Python would unpickle may be published.

    NEVER: no pickle at all. ALLOWLISTED: those that name allowed globals only. ANY: all; what they name is noted.
    """

    NEVER = "never"
    ALLOWLISTED = "allowlisted"
    ANY = "any"


class RemoteCode(enum.StrEnum):
    """What is said of a model that brings Python code for its loader to run (`auto_map`, `trust_remote_code`)."""

    ALLOW = "allow"
    FLAG = "flag"
    BLOCK = "block"


class Limits(BaseModel):
    """How far one verifier goes with one file. Reaching a limit is never clean: the file counts as not covered."""

    model_config = ConfigDict(frozen=True)

    depth: int = 4
    """Containers and pickles within one another."""
    members: int = 20_000
    """Of all archives within one file."""
    ratio: int = 200
    """Unpacked bytes for each packed one, looked at above 1 MiB of output."""
    output: int = 64 << 30
    """Bytes that are unpacked of one file, in all."""
    opcodes: int = 50_000_000
    """Of all pickles within one file."""
    seconds: float = 300.0
    """For one file and one verifier."""


class Policy(BaseModel):
    """What verifiers judge by. Travels to the worker processes as JSON.

    allowed_globals: beyond those that are always allowed (see `storage_proxy.verifiers.globals`).
    """

    model_config = ConfigDict(frozen=True)

    allow_pickle: AllowPickle = AllowPickle.ALLOWLISTED
    allowed_globals: frozenset[Global] = frozenset()
    remote_code: RemoteCode = RemoteCode.FLAG
    publish_flagged: bool = False
    limits: Limits = Limits()
