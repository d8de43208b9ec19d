"""Pictures of every view of the Model Store page, in light, dark and narrow: `python -m tests.browser.screenshots DIR`."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.conftest import FLAGS, chromium
from tests.browser.shop import INFECTED, Person, Shop, Visit, opened, visiting

README = b"""---
license: apache-2.0
---
# %s

A small model that shows how an import looks. Its weights are **random**.

| | |
|---|---|
| parameters | 2.1 million |
| format | `safetensors` |

```python
model = AutoModel.from_pretrained("/models/%s/main")
```
"""
MODELS = {
    "aurora/glow-base": 9_400_000,
    "aurora/glow-large": 31_000_000,
    "harbour/embed-multilingual": 2_200_000,
    "harbour/rerank-small": 700_000,
    "northwind/whisper-tiny": 1_500_000,
}
LOOKS = {
    "light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


def fill(shop: Shop) -> tuple[Person, str, str]:
    """Bring models, a folder and imports; returns who looks, the folder and an import that runs."""
    admin = shop.admin
    for name, size in MODELS.items():
        word = name.encode()
        files: dict[str, bytes | int] = {"README.md": README % (word, word), "config.json": b"{}"}
        shop.model(files | {"model.safetensors.bin": size}, name)
    for name in ("sample/tiny-bert", "sample/tiny-gpt", "sample/many-files"):
        shop.scan(name)
    _, folder = shop.folder(admin, "team-models")
    shop.folder(admin, "scratch", "GENERAL")
    shop.limit(admin, 200_000_000)
    infected = shop.model({"config.json": b"{}", "pytorch_model.bin": INFECTED}, "unknown/free-weights")
    tasks = [
        shop.begin(admin, name, folder) for name in ("sample/tiny-bert", "harbour/rerank-small", infected)
    ]
    shop.hub.wait_for(lambda: all(shop.status(task) in {"SUCCEEDED", "FAILED"} for task in tasks), 120)
    return admin, folder, tasks[2]


@contextmanager
def running(shop: Shop, folder: str) -> Iterator[str]:
    """Have an import run for as long as it is looked at."""
    with shop.slow("aurora/glow-large", 120_000):
        task = shop.begin(shop.admin, "aurora/glow-large", folder)
        shop.hub.wait_for(lambda: shop.hub.sent("aurora/glow-large") > 2_000_000, 120)
        yield task


def shown(page: Page) -> None:
    expect(page.get_by_role("heading").first).to_be_visible()
    expect(page.locator(".skeleton")).to_have_count(0)


def take(visit: Visit, person: Person, views: dict[str, str], into: Path, look: str) -> None:
    """Take a picture of each view, of the sign-in before and of the dialog after them."""
    page = visit.page()
    visit.go(page, "/sign-in")
    shown(page)
    page.screenshot(path=into / f"sign-in-{look}.png")
    visit.sign_in(person)
    for name, path in views.items():
        visit.go(page, path)
        shown(page)
        page.screenshot(path=into / f"{name}-{look}.png")
    visit.go(page, views["model"])
    page.get_by_role("button", name="Import to my folder").click()
    page.get_by_role("radio", name="team-models").check()
    expect(page.get_by_role("dialog")).to_contain_text("To fetch")
    page.screenshot(path=into / f"import-{look}.png")


def main(into: Path, browser: Browser, shop: Shop) -> None:
    """Take all of them."""
    into.mkdir(parents=True, exist_ok=True)
    person, folder, failed = fill(shop)
    with running(shop, folder) as task:
        views = {
            "store": "/",
            "model": shop.address("aurora/glow-base"),
            "tasks": "/tasks",
            "task": f"/tasks/{task}",
            "findings": f"/tasks/{failed}",
            "folders": "/folders",
            "folder": f"/folders/{folder}",
        }
        for look, options in LOOKS.items():
            with visiting(browser, shop, reduced_motion="reduce", **options) as visit:
                take(visit, person, views, into, look)


if __name__ == "__main__":
    expect.set_options(timeout=30_000)
    with ExitStack() as stack:
        shop = stack.enter_context(opened(Path(stack.enter_context(TemporaryDirectory()))))
        playwright = stack.enter_context(sync_playwright())
        binary = chromium()
        if binary is None:
            sys.exit("no chromium here: apt-get install chromium, or name one by STOWAGE_CHROMIUM")
        main(Path(sys.argv[1]), playwright.chromium.launch(executable_path=binary, args=FLAGS), shop)
