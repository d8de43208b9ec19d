"""The Model Store page: from "I want this model" to "it is in my folder", in a real browser against a real stack."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.shop import README, Shop, Visit, visiting

expect.set_options(timeout=15_000)


@pytest.fixture
def visit(browser: Browser, shop: Shop) -> Iterator[Visit]:
    with visiting(browser, shop) as visit:
        yield visit


def import_dialog(page: Page, shop: Shop, model: str) -> None:
    page.goto(f"{shop.stack.url}{shop.address(model)}")
    page.get_by_role("button", name="Import to my folder").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def ends(page: Page, text: str) -> None:
    """Wait for the page of a task to say how it ended."""
    expect(page.locator(".task-head .tag")).to_have_text(text, timeout=30_000)


# The story.


def test_from_i_want_this_model_to_it_is_in_my_folder(visit: Visit) -> None:
    shop = visit.shop
    page = visit.page()
    visit.go(page, "/")
    expect(page).to_have_url(re.compile(r"/sign-in"))
    page.get_by_label("Token").fill(shop.admin.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Model Store")).to_be_visible()
    assert shop.admin.token not in page.evaluate(
        "JSON.stringify([localStorage, sessionStorage, document.cookie])"
    )
    # A search term, an id and the address of a model's page.
    page.get_by_role("button", name="Scan the registry").first.click()
    scan = page.get_by_role("region", name="Scan the registry")
    scan.get_by_label("What to scan").fill("tiny")
    scan.get_by_role("button", name="Scan").click()
    expect(scan.get_by_role("link", name="sample/tiny-gpt")).to_be_visible()
    scan.get_by_label("What to scan").fill("sample/many-files@main")
    scan.get_by_role("button", name="Scan").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("many-files")
    page.get_by_role("link", name="Model Store", exact=True).click()
    page.get_by_role("button", name="Scan the registry").first.click()
    scan.get_by_label("What to scan").fill("https://huggingface.co/sample/tiny-bert/tree/main")
    scan.get_by_role("button", name="Scan").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("tiny-bert")
    expect(page.locator(".prose")).to_contain_text("bert")
    # Into a folder that is made on the way.
    page.get_by_role("button", name="Import to my folder").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("New folder for models").click()
    dialog.get_by_label("Name of the new folder").fill("first-folder")
    dialog.get_by_role("button", name="Make folder and import").click()
    expect(page).to_have_url(re.compile(r"/tasks/[0-9a-f-]{36}$"))
    ends(page, "Done")
    # Where it is, and where it came from.
    page.get_by_role("link", name="first-folder").first.click()
    kept = page.locator(".provenance-card")
    expect(kept).to_contain_text("sample/tiny-bert")
    expect(kept).to_contain_text("from huggingface")
    expect(kept).to_contain_text("admin@localhost")
    expect(kept).to_contain_text("stowage import sample/tiny-bert@main --to first-folder")
    page.get_by_role("link", name="sample", exact=True).click()
    page.get_by_role("link", name="tiny-bert", exact=True).click()
    page.get_by_role("link", name="main", exact=True).click()
    expect(page.get_by_role("rowheader", name="model.safetensors")).to_be_visible()
    # And out.
    page.get_by_role("button", name="Account of admin@localhost").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    assert visit.context.cookies() == []


def test_the_catalogue_is_searched_filtered_sorted_and_paged(visit: Visit) -> None:
    shop = visit.shop
    for number in range(26):
        shop.model({"config.json": b"{}", "model.bin": 10 * number}, f"paged/model-{number:02}")
    page = visit.open(shop.admin)
    search = page.get_by_role("searchbox", name="Search models by name")
    search.fill("paged/")
    expect(page.locator(".result-count")).to_contain_text("26 models")
    expect(page.locator(".card")).to_have_count(24)
    page.get_by_role("button", name="Show more models").click()
    expect(page.locator(".card")).to_have_count(26)
    page.get_by_label("Sort").select_option(label="Name")
    expect(page.locator(".card h2").first).to_have_text("model-00")
    page.get_by_label("Status").select_option(label="In storage")
    expect(page.get_by_text("No model fits")).to_be_visible()
    page.reload()
    expect(page.get_by_text("No model fits")).to_be_visible()
    expect(search).to_have_value("paged/")
    page.get_by_role("button", name="Clear search and filters").click()
    expect(page.locator(".card").first).to_be_visible()
    search.fill("paged/model-07")
    expect(page.locator(".card")).to_have_count(1)
    page.get_by_role("link", name="model-07").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("model-07")
    page.go_back()
    expect(search).to_have_value("paged/model-07")


def test_a_readme_that_means_harm_does_none(visit: Visit) -> None:
    model = visit.shop.model({"README.md": README.encode(), "config.json": b"{}"})
    page = visit.open(visit.shop.admin, visit.shop.address(model))
    prose = page.locator(".prose")
    expect(prose).to_contain_text("the end of the readme")
    expect(prose.get_by_role("table")).to_be_visible()
    assert page.evaluate("window.harmed") is None
    told = page.evaluate(
        """() => [...document.querySelectorAll('.prose *')].flatMap((each) => [each.tagName,
             ...each.getAttributeNames().map((name) => `${name}=${each.getAttribute(name)}`)])"""
    )
    assert not {"SCRIPT", "IFRAME", "STYLE", "LINK", "BASE", "FORM", "INPUT", "BUTTON", "SVG", "MATH"} & set(
        told
    )
    assert not [each for each in told if re.match(r"(on\w+|style|id|name)=", each)]
    assert not [
        each for each in told if re.match(r"(href|src)=\s*(javascript|data:text)", each, re.IGNORECASE)
    ]
    assert not [each for each in told if each.startswith("src=http")]
    page.get_by_text("over everything").click(trial=True)
    page.get_by_role("button", name="Import to my folder").click(trial=True)


def test_an_import_to_the_artifact_storage_shows_on_the_card(visit: Visit) -> None:
    model = visit.shop.model({"config.json": b"{}", "model.bin": 5000})
    page = visit.open(visit.shop.admin, visit.shop.address(model))
    page.get_by_role("button", name="Import to the artifact storage").click()
    page.get_by_role("dialog").get_by_role("button", name="Import", exact=True).click()
    ends(page, "Done")
    page.get_by_role("link", name="Models", exact=True).click()
    page.get_by_role("searchbox").fill(model)
    card = page.locator(".card", has_text=model.partition("/")[2])
    expect(card).to_contain_text("In storage")
    expect(card).to_contain_text("Verified")
    person = visit.shop.person()
    visit.context.clear_cookies()
    page = visit.open(person, visit.shop.address(model))
    expect(page.get_by_role("button", name="Import to my folder")).to_be_visible()
    expect(page.get_by_role("button", name="Import to the artifact storage")).to_have_count(0)


# The dialog.


def test_a_name_that_is_taken_or_refused_is_told_at_its_field(visit: Visit) -> None:
    shop, person = visit.shop, visit.shop.person()
    taken, _ = shop.folder(person)
    model = shop.model({"config.json": b"{}"})
    page = visit.open(person)
    import_dialog(page, shop, model)
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("New folder for models").click()
    name, path = dialog.get_by_label("Name of the new folder"), dialog.get_by_label("Path in the folder")
    path.fill("my/path")
    for wrong, told in (
        (taken, f"there is a folder {taken} already"),
        ("a/b", "letters"),
        ("..", "dot"),
        ("", "name"),
    ):
        name.fill(wrong)
        dialog.get_by_role("button", name="Make folder and import").click()
        expect(name).to_have_attribute("aria-invalid", "true")
        expect(dialog.get_by_role("alert")).to_contain_text(re.compile(re.escape(told), re.IGNORECASE))
        expect(name).to_be_focused()
        expect(name).to_have_value(wrong)
        expect(path).to_have_value("my/path")
    name.fill(f"{taken}-2")
    path.fill("../out")
    dialog.get_by_role("button", name="Make folder and import").click()
    expect(path).to_have_attribute("aria-invalid", "true")
    expect(path).to_have_value("../out")
    path.fill("my/path")
    dialog.get_by_role("button", name="Import", exact=True).click()
    ends(page, "Done")
    expect(page.get_by_text("my/path").first).to_be_visible()


def test_what_is_in_the_way_is_shown_before_anything_starts(visit: Visit) -> None:
    shop, person = visit.shop, visit.shop.person()
    name, folder = shop.folder(person)
    model = shop.model({"config.json": b"{}", "weights/model.bin": 4000})
    mine = shop.directory(person, folder) / model / "main" / "weights" / "model.bin"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    page = visit.open(person)
    import_dialog(page, shop, model)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("radio", name=re.compile(name))).to_be_checked()
    expect(dialog).to_contain_text(f"{model}/main/weights/model.bin")
    begin = dialog.get_by_role("button", name="Import", exact=True)
    expect(begin).to_be_disabled()
    dialog.get_by_label("Path in the folder").fill("elsewhere")
    expect(begin).to_be_enabled()
    dialog.get_by_label("Path in the folder").fill("")
    expect(begin).to_be_disabled()
    assert mine.read_bytes() == b"mine"
    dialog.get_by_label("Replace them with the model's files").check()
    begin.click()
    ends(page, "Done")
    assert len(mine.read_bytes()) == 4000


def test_a_full_quota_is_told_before_anything_starts(visit: Visit) -> None:
    shop, person = visit.shop, visit.shop.person()
    shop.folder(person)
    model = shop.model({"model.bin": 40_000})
    shop.limit(person, 30_000)
    page = visit.open(person)
    import_dialog(page, shop, model)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("the quota leaves")
    expect(dialog.get_by_role("button", name="Import", exact=True)).to_be_disabled()
    assert shop.hub.downloads(model) == []
    visit.go(page, "/tasks")
    expect(page.get_by_text("No imports yet")).to_be_visible()
    # In a folder that is yet to be made, the manager has the word.
    import_dialog(page, shop, model)
    dialog.get_by_text("New folder for models").click()
    dialog.get_by_role("button", name="Make folder and import").click()
    expect(dialog.get_by_role("alert").first).to_contain_text("quota")
    shop.limit(person, None)


def test_the_keyboard_alone_is_enough(visit: Visit) -> None:
    shop, person = visit.shop, visit.shop.person()
    model = shop.model({"config.json": b"{}"})
    page = visit.page()
    visit.go(page, "/")
    keys = page.keyboard

    def until(name: str) -> None:
        """Go on with Tab until what has the focus has a name that begins so."""
        for _ in range(60):
            keys.press("Tab")
            if page.locator(":focus").count() and named(page).startswith(name):
                return
        pytest.fail(f"Tab does not lead to {name}")

    expect(page.get_by_label("Token")).to_be_focused()
    keys.type(person.token)
    keys.press("Enter")
    expect(page.get_by_role("heading", name="Model Store")).to_be_visible()
    until("Search models by name")
    keys.type(model)
    expect(page.locator(".card")).to_have_count(1)
    until(model.partition("/")[2])
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(model.partition("/")[2])
    until("Import to my folder")
    keys.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    keys.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("button", name="Import to my folder")).to_be_focused()
    keys.press("Enter")
    expect(dialog.get_by_label("Name of the new folder")).to_be_visible()
    dialog.get_by_label("Name of the new folder").focus()
    keys.press("Control+A")
    keys.type("by-keyboard")
    keys.press("Enter")
    ends(page, "Done")
    until("by-keyboard")
    keys.press("Enter")
    expect(page.locator(".provenance-card")).to_contain_text(model)


def named(page: Page) -> str:
    text: str = page.evaluate(
        "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent).trim()"
    )
    return text


def test_a_path_and_a_command_are_copied(visit: Visit, tmp_path: Path) -> None:
    shop, person = visit.shop, visit.shop.person()
    name, folder = shop.folder(person)
    model = shop.model({"config.json": b"{}"})
    task = shop.begin(person, model, folder)
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=shop.stack.url)
    page = visit.open(person, f"/tasks/{task}")
    ends(page, "Done")
    visit.go(page, f"/folders/{folder}")
    page.get_by_role("button", name="Copy the path").click()
    assert page.evaluate("navigator.clipboard.readText()") == f"{model}/main"
    page.get_by_role("button", name="Copy the command that imports it again").click()
    assert page.evaluate("navigator.clipboard.readText()") == f"stowage import {model}@main --to {name}"
    page.screenshot(path=tmp_path / "folder.png")
