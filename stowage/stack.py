"""The embedded stack: PostgreSQL, a storage proxy with its worker, the manager and the sample hub as one tree of
processes, all state beneath one directory.

Every child dies with the supervisor, however that ends, and is started again when it ends by itself.
"""

import asyncio
import fcntl
import functools
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import asyncpg
import httpx

from proxy_client.errors import BadRequest
from proxy_client.loading import loading
from stowage.data_dir import PROXY_SCHEMA, DataDir, replace_text
from stowage.embedded_postgres import DATABASE, STOP_SIGNALS, EmbeddedPostgres, EmbeddedPostgresError
from stowage.processes import CannotStart, Part, address, free_port, port_is_free, spawn, tail
from stowage.samples import write_samples

DEFAULT_ENDPOINT = "https://huggingface.co"
_ENDPOINT = re.compile(r"https?://[^/?#@\s]+(/[^?#\s]*)?")
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 -- the operator's choice, only read here
_NOT_PASSED_ON = ("HF_TOKEN", "HF_ENDPOINT", "STOWAGE_URL", "STOWAGE_TOKEN")
_READY_WITHIN = 90.0  # seconds
_RECOVERED_WITHIN = 600.0  # seconds that PostgreSQL may take to repeat what its log holds
_LET_GO_WITHIN = 2.0  # seconds in which a killed predecessor's manager frees its port
_GIVE_UP_AFTER = 4  # ends in a row before the stack was ready
_POLL = 0.05  # seconds


class AlreadyRunning(CannotStart):
    """A stack runs on this directory; it was left alone."""


@dataclass(frozen=True)
class StackOptions:
    """What a stack is started with. Port 0 takes a free one, and the same again at the next start.

    endpoint, token: None takes what the last start on this directory had, an empty token forgets that one.
    """

    data_dir: Path
    host: str
    port: int
    sample_hub: bool = False
    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    durable: bool = True

    @classmethod
    def from_environment(
        cls, data_dir: Path, host: str, port: int, *, sample_hub: bool, environment: Mapping[str, str]
    ) -> "StackOptions":
        """Take the registry from HF_ENDPOINT and HF_TOKEN; the sample hub gets no token.

        STOWAGE_FSYNC=off is for tests: it may lose everything when the machine, not just a process, goes down.
        Raises `BadRequest` for an endpoint that is none.
        """
        endpoint = None if sample_hub else (environment.get("HF_ENDPOINT") or "").strip().rstrip("/") or None
        if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
            raise BadRequest(
                "this is no endpoint of a hub; write https://HOST or http://HOST:PORT, and a token in HF_TOKEN",
                field="HF_ENDPOINT",
            )
        token = environment.get("HF_TOKEN")
        token = None if sample_hub or token is None else token.strip()
        durable = environment.get("STOWAGE_FSYNC") != "off"
        return cls(data_dir.absolute(), host, port, sample_hub, endpoint, token, durable)


def _load_migrations() -> ModuleType:
    with loading():
        return importlib.import_module("migrations")


class Stack:
    """One embedded stack, supervised by this process.

    say: takes one line for people about what happens. Call from the main thread, as the children's lives hang on it.
    """

    def __init__(self, options: StackOptions, say: Callable[[str], None]) -> None:
        self.options = options
        self.dir = DataDir(options.data_dir)
        self.url = ""
        self.endpoint = options.endpoint or DEFAULT_ENDPOINT
        self.sample_hub = options.sample_hub
        self.registry_is_kept = False  # chosen at an earlier start, not at this one
        self._say = say
        self._parts: dict[str, Part] = {}
        self._ports: dict[str, int] = {}
        self._lock: IO[str] | None = None
        self._threads = ThreadPoolExecutor(max_workers=16, thread_name_prefix="stack")
        self._postgres = EmbeddedPostgres(
            self.dir.postgres, durable=options.durable, log=self.dir.logs / "postgres.log"
        )

    async def start(self) -> None:
        """Start everything and return once imports can be ordered.

        Raises `AlreadyRunning`, or `CannotStart` with what stood in the way; call `stop` then as well.
        """
        try:
            self.dir.make()
            self._occupy()
            self._choose_registry()
            await self._choose_addresses()
            # It brings SQLAlchemy, which loads while PostgreSQL starts.
            migrations = asyncio.get_running_loop().run_in_executor(self._threads, _load_migrations)
            if self.sample_hub:
                self._say("Starting the sample hub")
                write_samples(self.dir.hub)
                self._keep_python("hub", "stowage.hub", str(self.dir.hub), "--listen", self._local("hub"))
            self._say("Starting PostgreSQL")
            await self._start_postgres()
            self._say("Preparing the database")
            await self._prepare_database(await migrations)
            self._configure()
            self._insist_on_agreement()
            self._say("Starting the storage proxy, its worker and the manager")
            proxy_config = ("--config", str(self.dir.proxy_config))
            self._keep_python("proxy", "storage_proxy", *proxy_config)
            self._keep_python("manager", "manager", "--config", str(self.dir.manager_config))
            self._keep_python("worker", "storage_proxy.worker", *proxy_config)
        except asyncpg.InvalidPasswordError as exc:
            raise CannotStart(
                f"PostgreSQL refuses the password in {self.dir.postgres / 'password'}; put the one back that it was made with"
            ) from exc
        except OSError as exc:
            raise CannotStart(f"{exc.filename or self.dir.path}: {exc.strerror or exc}") from exc
        await self._wait_ready()

    async def stop(self) -> None:
        """Stop everything that runs, the database last, and let go of the directory."""
        for each in self._parts.values():
            each.start_no_more()
        for name in ("manager", "worker", "proxy", "hub", "postgres"):
            if part := self._parts.get(name):
                await part.end()
                del self._parts[name]  # not before: `hasten` reaches the one that is slow
        self._threads.shutdown()
        self._postgres.release()
        if self._lock is not None:
            self._write_state(running=False)
            self._lock.close()
            self._lock = None

    def hasten(self) -> None:
        """Make a `stop` that is under way a quick one."""
        for part in self._parts.values():
            part.hasten()

    def _insist_on_agreement(self) -> None:
        from stowage.checks import disagreements  # noqa: PLC0415 -- brings SQLAlchemy

        if told := disagreements([self.dir.manager_config], [self.dir.proxy_config]):
            raise CannotStart("\n".join(told))

    # The directory and the addresses.

    def _occupy(self) -> None:
        lock = self.dir.lock.open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            lock.close()
            state = self._last_state()
            raise AlreadyRunning(
                f"Stowage already runs on {self.dir.path}: {state.get('url')} (process {state.get('pid')}). "
                "It was left alone; use it, stop it first, or choose another --data-dir"
            ) from exc
        self._lock = lock

    def _last_state(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            state = json.loads(self.dir.state.read_text())
            if isinstance(state, dict):
                return state
        return {}

    def _choose_registry(self) -> None:
        """Take the registry of the options, else that of the last start: the imports under way come from there."""
        last = self._last_state().get("registry")
        last = last if isinstance(last, dict) else {}
        last_endpoint = last.get("endpoint")
        if not isinstance(last_endpoint, str) or not _ENDPOINT.fullmatch(last_endpoint):
            last_endpoint = None
        if not self.options.sample_hub and self.options.endpoint is None:
            self.sample_hub = last.get("sample_hub") is True
            self.endpoint = last_endpoint or DEFAULT_ENDPOINT
            self.registry_is_kept = self.sample_hub or last_endpoint is not None
        # Before the choice is noted: one registry's token must never be taken for another's.
        if self.sample_hub:
            self.dir.write_registry_token("")
        elif self.options.token is not None or self.endpoint != last_endpoint:
            self.dir.write_registry_token(self.options.token or "")

    async def _choose_addresses(self) -> None:
        kept = self._last_state().get("ports")
        kept = kept if isinstance(kept, dict) else {}
        for name in ("proxy", "hub"):
            self._ports[name] = self._free(kept.get(name))
        host, port = self.options.host, self.options.port
        if port:
            await self._wait_for_port(host, port)
        else:
            port = self._free(kept.get("manager"))
        self._ports["manager"] = port
        self.url = f"http://{address(_ANY_HOST.get(host, host), port)}"
        if self.sample_hub:
            self.endpoint = f"http://{self._local('hub')}"
        self._write_state(running=True)

    def _free(self, kept: object) -> int:
        taken = set(self._ports.values())
        if isinstance(kept, int) and 0 < kept < 65536 and kept not in taken and port_is_free(kept):  # noqa: PLR2004 -- a port
            return kept
        while (port := free_port()) in taken:
            pass
        return port

    async def _wait_for_port(self, host: str, port: int) -> None:
        deadline = asyncio.get_running_loop().time() + _LET_GO_WITHIN
        while not port_is_free(port, host):
            if asyncio.get_running_loop().time() > deadline:
                raise CannotStart(
                    f"cannot listen on {address(host, port)}: another program listens there, or this machine has no such "
                    "address; stop that program or choose another HOST:PORT with --listen"
                )
            await asyncio.sleep(_POLL)

    def _local(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def _write_state(self, *, running: bool) -> None:
        """Say where the stack is: `stack.json`, read by the command line."""
        processes = {name: part.process.pid for name, part in self._parts.items() if part.process is not None}
        state = {
            "url": self.url,
            "pid": os.getpid() if running else None,
            "ports": self._ports,
            "registry": {"sample_hub": True} if self.sample_hub else {"endpoint": self.endpoint},
            "processes": processes,
        }
        replace_text(self.dir.state, json.dumps(state, indent=2) + "\n")

    # The database.

    async def _start_postgres(self) -> None:
        loop = asyncio.get_running_loop()
        for attempt in range(3):
            await loop.run_in_executor(self._threads, self._postgres.prepare)
            self._keep(
                "postgres",
                self._postgres.spawn,
                self._postgres.log,
                before=self._postgres.clear_leftovers,
                stop_signals=STOP_SIGNALS,
            )
            try:
                await self._wait_for_postgres()
            except EmbeddedPostgresError as exc:
                await self._parts.pop("postgres").end()
                if attempt < 2 and "Address already in use" in str(exc):  # noqa: PLR2004 -- somebody was quicker
                    continue
                raise
            return

    async def _wait_for_postgres(self) -> None:
        loop = asyncio.get_running_loop()
        part = self._parts["postgres"]
        deadline = loop.time() + _RECOVERED_WITHIN
        while part.process is None or not self._postgres.is_ready(part.process):
            if part.failures >= _GIVE_UP_AFTER or loop.time() > deadline:
                raise EmbeddedPostgresError(
                    f"PostgreSQL {part.last_end or 'does not come up'}; the end of {part.log}:\n{tail(part.log)}"
                )
            await asyncio.sleep(_POLL / 2)

    async def _prepare_database(self, migrations: ModuleType) -> None:
        connection = await asyncpg.connect(self._postgres.url())
        try:
            found = await connection.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", DATABASE)
            if not found:
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close()
        url = self._postgres.url(DATABASE)
        await migrations.migrate_manager(url)
        await migrations.migrate_proxy(url, PROXY_SCHEMA)

    # The services.

    def _configure(self) -> None:
        self.dir.write_secrets(self._postgres.url(DATABASE))
        self.dir.write_configuration(
            manager_listen=address(self.options.host, self._ports["manager"]),
            manager_url=self.url,
            proxy_port=self._ports["proxy"],
            registry_url=self.endpoint,
            has_token=self.dir.registry_token.exists(),
        )

    def _environment(self) -> dict[str, str]:
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON}
        # A proxy of the environment leads to registries, never to the stack's own parts.
        for name in ("NO_PROXY", "no_proxy"):
            others = environment.get(name)
            environment[name] = ",".join(filter(None, [others, "127.0.0.1,::1,localhost"]))
        return environment | {"STOWAGE_ADMIN_TOKEN_FILE": str(self.dir.admin_token), "PYTHONUNBUFFERED": "1"}

    def _keep_python(self, name: str, module: str, *arguments: str) -> None:
        log = self.dir.logs / f"{name}.log"
        # -P: a folder of the user's that is called like one of our packages is not imported in its stead.
        command = [sys.executable, "-P", "-m", module, *arguments]
        start = functools.partial(
            spawn, command, log=log, environment=self._environment(), directory=self.dir.path
        )
        self._keep(name, start, log)

    def _keep(
        self, name: str, start: Callable[[], subprocess.Popen[bytes]], log: Path, **details: Any
    ) -> None:
        part = Part(name, start, log=log, changed=self._note_processes, ended=self._note_end, **details)
        self._parts[name] = part
        part.keep(self._threads)

    def _note_processes(self) -> None:
        with suppress(OSError):  # a full disk stops no part from starting again
            self._write_state(running=True)

    def _note_end(self, part: Part, pause: float) -> None:
        self._say(f"The part {part.name} {part.last_end}; it starts again in {pause:g} s (log: {part.log})")

    async def _wait_ready(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _READY_WITHIN
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            while reasons := await self._reasons(client):
                for part in self._parts.values():
                    if part.failures >= _GIVE_UP_AFTER:
                        raise CannotStart(
                            f"the part {part.name} {part.last_end}, again and again; the end of {part.log}:\n{tail(part.log)}"
                        )
                if loop.time() > deadline:
                    raise CannotStart(
                        f"not ready after {_READY_WITHIN:g} s: {reasons}; the logs are in {self.dir.logs}"
                    )
                await asyncio.sleep(_POLL)

    async def _manager_listens(self) -> bool:
        host = self.options.host
        try:
            async with asyncio.timeout(5.0):
                _, writer = await asyncio.open_connection(_ANY_HOST.get(host, host), self._ports["manager"])
        except OSError:
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True

    async def _reasons(self, client: httpx.AsyncClient) -> str:
        """Return why imports cannot be ordered yet; nothing if they can."""
        # A look at the port takes a hundredth of a request's CPU, which the parts need for their start.
        if not await self._manager_listens():
            return f"{self.url} does not answer"
        try:
            if self.sample_hub:
                await client.get(f"{self.endpoint}/healthz")
            answer = await client.get(f"{self.url}/readyz")
            if answer.status_code == httpx.codes.OK:
                return ""
            return "; ".join(map(str, answer.json()["reasons"])) or "no reason given"
        except httpx.HTTPError as exc:
            return f"{exc.request.url} does not answer"
        except (ValueError, LookupError, TypeError):
            return f"{self.url}/readyz answers with status {answer.status_code}"
