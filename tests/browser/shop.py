"""What the tests of the Model Store page share: a stack whose hub misbehaves on demand, people, and a browser that is watched."""

import base64
import importlib.resources
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

from stowage.samples import write_samples
from tests.conftest import RunningStack
from tests.faults.hub import FaultHub, Rule
from tests.faults.models import make_model

# As long as a name of the Hub may be: 96 characters on each side.
LONG_ID = f"{('long-author.' * 9)[:95]}x/{('a-very-long-model.name_' * 5)[:95]}x"

README = """---
license: mit
---
# A readme that means harm

<script>window.harmed = "script"; fetch("http://outside.invalid/script")</script>
<img src="http://outside.invalid/pixel.png" onerror="window.harmed = 'onerror'">
![a picture](http://outside.invalid/picture.png)
<iframe src="http://outside.invalid/frame"></iframe>
<svg onload="window.harmed = 'svg'"><use href="http://outside.invalid/x.svg#x"/></svg>
<style>@import url("http://outside.invalid/style.css"); body { display: none }</style>
<link rel="stylesheet" href="http://outside.invalid/style.css"><base href="http://outside.invalid/">
<form action="http://outside.invalid/form"><input name="token"><button>Send</button></form>
<a id="main" name="main" href="javascript:window.harmed='href'">a link of script</a>
[a markdown link of script](javascript:window.harmed='markdown')
[data](data:text/html,<script>window.harmed='data'</script>)
<div style="position:fixed;inset:0;background:url(http://outside.invalid/bg.png)">over everything</div>
<math><mtext><table><mglyph><style><img src=x onerror="window.harmed='mutation'"></style></mglyph></table></mtext></math>

| a table | of two |
|---|---|
| cells | here |

    the end of the readme
"""
# A pickle that would call os.system, and a configuration that asks for code of the model's own.
INFECTED = b"cos\nsystem\n(S'true'\ntR."
SUSPICIOUS = b'{"auto_map": {"AutoModel": "modeling.Model"}}'

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Person:
    id: str
    email: str
    token: str


class Shop:
    """A stack and its hub; everything that a test needs is made through the API, under names of its own."""

    def __init__(self, stack: RunningStack, hub: FaultHub) -> None:
        self.stack = stack
        self.hub = hub
        me = stack.graphql("{ me { id email } }")["me"]
        self.admin = Person(me["id"], me["email"], stack.token)

    def person(self, name: str = "user") -> Person:
        email = f"{name}{next(_numbers)}@example.org"
        made = self.stack.graphql(
            "mutation ($email: String!) { createUser(input: {email: $email}) { user { id } } }",
            {"email": email},
        )["createUser"]["user"]["id"]
        return Person(made, email, self.token(made))

    def token(self, user: str) -> str:
        made = self.stack.graphql(
            'mutation ($id: ID!) { createToken(input: {userId: $id, name: "page"}) { token } }', {"id": user}
        )
        return str(made["createToken"]["token"])

    def model(self, files: dict[str, bytes | int], name: str | None = None) -> str:
        """Put a model at the hub, and scan it; returns its name."""
        # Padded: no name begins another.
        name = name or f"shop/model-{next(_numbers):04}"
        make_model(self.hub.directory, name, files)
        self.scan(name)
        return name

    def scan(self, name: str) -> str:
        """Return the id of the revision main, once it is in the catalogue."""
        found = self.stack.graphql(
            """mutation ($model: String!) { scanArtifactModels(input: {models: [{modelId: $model}]}) {
                 artifactRevision { edges { node { id artifact { id } } } } } }""",
            {"model": name},
        )
        return str(found["scanArtifactModels"]["artifactRevision"]["edges"][0]["node"]["id"])

    def address(self, name: str) -> str:
        """Return where the page shows a model."""
        found = self.stack.graphql(
            "query ($name: String!) { artifacts(filter: {name: {equals: $name}}) { edges { node { id } } } }",
            {"name": name},
        )
        return f"/models/{plain(found['artifacts']['edges'][0]['node']['id'])}"

    def folder(self, owner: Person, name: str | None = None, usage_mode: str = "MODEL") -> tuple[str, str]:
        """Make a folder; returns its name and its plain id."""
        name = name or f"folder-{next(_numbers):04}"
        made = self.stack.graphql(
            """mutation ($input: CreateVFolderInput!) { createVfolder(input: $input) { vfolder { id } } }""",
            {"input": {"name": name, "usageMode": usage_mode}},
            token=owner.token,
        )
        return name, plain(made["createVfolder"]["vfolder"]["id"])

    def begin(self, owner: Person, model: str, folder: str, **options: Any) -> str:
        """Order an import into a folder by its id; returns the task's plain id."""
        asked = {"artifactRevisionIds": [self.scan(model)], "vfolderId": folder, "options": options}
        made = self.stack.graphql(
            "mutation ($input: ImportArtifactsInput!) { importArtifacts(input: $input) { tasks { taskId } } }",
            {"input": asked},
            token=owner.token,
        )
        return str(made["importArtifacts"]["tasks"][0]["taskId"])

    def status(self, task: str) -> str:
        found = self.stack.graphql("query ($id: ID!) { importTask(id: $id) { status } }", {"id": task})
        return str(found["importTask"]["status"])

    def limit(self, owner: Person, limit: int | None) -> None:
        self.stack.graphql(
            "mutation ($input: SetQuotaInput!) { setQuota(input: $input) { quota { id } } }",
            {"input": {"userId": owner.id, "limitBytes": None if limit is None else str(limit)}},
        )

    def directory(self, owner: Person, folder: str) -> Path:
        """Return where a folder lies on this machine's disk."""
        scope, hexadecimal = UUID(plain(owner.id)).hex, UUID(folder).hex
        return self.stack.volume / scope / hexadecimal[:2] / hexadecimal[2:4] / hexadecimal[4:]

    @contextmanager
    def slow(self, model: str, rate: int = 1 << 20) -> Iterator[None]:
        """Let the files of a model come at so many bytes a second."""
        self.hub.set(Rule(path=f"/{re.escape(model)}/resolve/", rate=rate))
        try:
            yield
        finally:
            self.hub.clear()


def plain(global_id: str) -> str:
    return base64.b64decode(global_id).decode().rpartition(":")[2]


@contextmanager
def opened(directory: Path) -> Iterator[Shop]:
    """Open a shop: a hub with the samples and a few models that mean harm, and a stack before it."""
    write_samples(directory / "hub")
    with FaultHub(directory / "hub") as hub:
        stack = RunningStack(directory / "data", hf_endpoint=hub.url)
        try:
            yield Shop(stack, hub)
        finally:
            stack.stop()


@dataclass
class Visit:
    """One browser profile at a shop; what it asked for and what it complained of."""

    context: BrowserContext
    shop: Shop
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context.set_default_timeout(15_000)
        self.context.on("request", self._note_request)
        self.context.on("console", self._note_console)
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _note_request(self, request: Request) -> None:
        self.asked.append(request.url)

    def _note_console(self, message: ConsoleMessage) -> None:
        # Chromium writes a line for each answer that is no 2xx; tests look at those by themselves.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def page(self) -> Page:
        page = self.context.new_page()
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        return page

    def sign_in(self, person: Person) -> None:
        """Sign in as the page's own form does, without it."""
        answer = self.context.request.post(f"{self.shop.stack.url}/session", data={"token": person.token})
        assert answer.status == 200, answer.text()

    def open(self, person: Person, path: str = "/") -> Page:
        """Open a view as somebody who is signed in."""
        self.sign_in(person)
        page = self.page()
        self.go(page, path)
        return page

    def go(self, page: Page, path: str) -> None:
        page.goto(f"{self.shop.stack.url}{path}")

    def check(self) -> None:
        """Insist that nothing was asked of another origin, and that the browser had no complaint."""
        here = self.shop.stack.url.removeprefix("http")
        ours = ("data:", f"http{here}/", f"ws{here}/", "blob:")
        assert [url for url in self.asked if not url.startswith(ours)] == []
        assert self.asked
        left = [text for text in self.complaints if not any(re.search(each, text) for each in self.expected)]
        assert left == []


@contextmanager
def visiting(browser: Browser, shop: Shop, **options: Any) -> Iterator[Visit]:
    """Open a fresh profile, and check it afterwards."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
    visit = Visit(context, shop)
    try:
        yield visit
        visit.check()
    finally:
        context.close()


@cache
def _axe() -> str:
    return (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text()


def barriers(page: Page, *rules: str) -> list[str]:
    """Return what axe finds that keeps people out, where it is serious or critical, by all rules or those named."""
    # As expressions of the debugger: the page's policy lets no script be added.
    page.evaluate(f"(() => {{ {_axe()} }})()")
    only = json.dumps({"runOnly": list(rules)} if rules else {})
    found = page.evaluate(f"axe.run(document, {{resultTypes: ['violations'], ...{only}}})")
    return [
        f"{each['id']}: {json.dumps([node['html'][:160] for node in each['nodes'][:3]])}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


def overflows(page: Page) -> list[str]:
    """Return what makes the page wider than its window."""
    found: list[str] = page.evaluate(
        """async () => {
          // A new size of the window reaches styles with the next frames.
          for (let frame = 0; frame < 30; frame += 1) {
            await new Promise((next) => requestAnimationFrame(next));
            if (document.documentElement.scrollWidth <= document.documentElement.clientWidth) break;
          }
          const root = document.documentElement;
          if (root.scrollWidth <= root.clientWidth) return [];
          return [...document.querySelectorAll('body *')]
            .filter((each) => each.getBoundingClientRect().right > root.clientWidth + 1)
            .map((each) => each.outerHTML.slice(0, 120));
        }"""
    )
    return found
