import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests.browser.shop import Shop, opened
from tests.conftest import RunningStack

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """Find Debian's Chromium, or the one that STOWAGE_CHROMIUM names."""
    return os.environ.get("STOWAGE_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or the one that STOWAGE_CHROMIUM names.

    A module's, not the session's: Playwright keeps an event loop running in this thread for as long, and no test
    could run another one.
    """
    binary = chromium()
    if binary is None:
        why = "no chromium here: apt-get install chromium, or name one by STOWAGE_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """One browser profile at a stack; what it asked for and what it complained of."""

    def __init__(self, context: BrowserContext, stack: RunningStack) -> None:
        self.context = context
        self.stack = stack
        self.asked: list[str] = []
        self.complaints: list[str] = []
        context.on("request", self._note_request)
        context.on("console", self._note_console)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _note_request(self, request: Request) -> None:
        self.asked.append(request.url)

    def _note_console(self, message: ConsoleMessage) -> None:
        # Chromium writes a line for each answer that is no 2xx; tests look at those by themselves.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def open(self) -> Page:
        """Open GraphiQL in a tab of its own."""
        page = self.context.new_page()
        page.on("websocket", lambda socket: self.asked.append(socket.url))
        page.goto(f"{self.stack.url}/graphql")
        return page

    def sign_in(self, page: Page, token: str | None = None) -> None:
        page.get_by_label("Token").fill(token or self.stack.token)
        page.get_by_role("button", name="Open").click()


@pytest.fixture(scope="package")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The stack of the Model Store page, for all tests of it."""
    with opened(tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture
def visit(browser: Browser, stack: RunningStack) -> Iterator[Visit]:
    """A fresh profile. After the test: nothing was asked of another origin, and the browser had no complaint."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    visit = Visit(context, stack)
    yield visit
    context.close()
    here = stack.url.removeprefix("http")
    strangers = [
        url for url in visit.asked if not url.startswith(("data:", f"http{here}/", f"ws{here}/", "blob:"))
    ]
    assert visit.asked
    assert strangers == []
    assert visit.complaints == []
