"""GraphiQL in a real browser, against a real stack."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Visit

STARTERS = ["ScanModel", "CreateFolder", "ImportModel", "WatchImport", "ListFiles"]


def tabs(page: Page) -> list[str]:
    return page.locator(".graphiql-tab-button").all_inner_texts()


def choose(page: Page, operation: str) -> None:
    page.locator(".graphiql-tab-button", has_text=operation).click()


def run(page: Page) -> None:
    page.locator(".graphiql-execute-button").click()


def answer(page: Page, field: str, text: str = "") -> Any:
    """What the operation answered in `field`, once the answer holds both."""
    pane = page.locator(".graphiql-response")
    expect(pane).to_contain_text(f'"{field}"')
    expect(pane).to_contain_text(text)
    shown = page.evaluate("document.querySelector('.graphiql-response .CodeMirror').CodeMirror.getValue()")
    body = json.loads(shown)
    assert "errors" not in body, body
    return body["data"][field]


def test_five_tabs_lead_from_a_model_to_its_files(visit: Visit, tmp_path: Path) -> None:
    page = visit.open()
    visit.sign_in(page)
    expect(page.get_by_text("admin@localhost")).to_be_visible()
    assert tabs(page) == STARTERS
    run(page)
    (edge,) = answer(page, "scanArtifactModels")["artifactRevision"]["edges"]
    assert edge["node"]["artifact"]["name"] == "sample/tiny-bert"
    choose(page, "CreateFolder")
    run(page)
    assert answer(page, "createVfolder")["vfolder"]["name"] == "my-models"
    choose(page, "ImportModel")
    run(page)
    (task,) = answer(page, "importArtifacts")["tasks"]
    assert task["task"]["path"] == "sample/tiny-bert/main"
    choose(page, "WatchImport")
    with page.expect_websocket() as opened:
        run(page)
    assert opened.value.url == f"{visit.stack.url}/graphql".replace("http", "ws", 1)
    update = answer(page, "importTaskUpdated", '"SUCCEEDED"')
    assert update["filesDone"] == update["filesTotal"] > 0
    choose(page, "ListFiles")
    run(page)
    paths = {each["path"] for each in answer(page, "vfolderFiles")}
    assert "sample/tiny-bert/main/config.json" in paths
    page.screenshot(path=tmp_path / "files.png")


def test_the_explorer_writes_a_query(visit: Visit) -> None:
    page = visit.open()
    visit.sign_in(page)
    choose(page, "ListFiles")
    page.get_by_role("button", name="Show GraphiQL Explorer").click()
    explorer = page.locator(".docExplorerWrap")
    explorer.get_by_text("volumes", exact=True).click()
    query = page.locator(".graphiql-query-editor")
    expect(query).to_contain_text("volumes")
    explorer.get_by_text("host", exact=True).first.click()
    expect(query).to_contain_text(re.compile(r"volumes \{.*host"))


def test_documentation_settings_and_help_open(visit: Visit) -> None:
    page = visit.open()
    visit.sign_in(page)
    page.get_by_role("button", name="Show Documentation Explorer").click()
    expect(page.get_by_text("Subscription", exact=True).first).to_be_visible()
    page.get_by_role("button", name="Show History").click()
    for name in ("Open settings dialog", "Open short keys dialog"):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()


def test_the_token_is_kept_for_its_tab_alone(visit: Visit) -> None:
    page = visit.open()
    visit.sign_in(page)
    expect(page.get_by_text("admin@localhost")).to_be_visible()
    stored = page.evaluate("JSON.stringify([localStorage, document.cookie])")
    assert visit.stack.token not in stored
    page.reload()
    expect(page.get_by_text("admin@localhost")).to_be_visible()
    other = visit.open()
    expect(other.get_by_label("Token")).to_be_visible()
    assert other.get_by_label("Token").input_value() == ""
    page.get_by_role("button", name="Forget token").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()


@pytest.mark.parametrize("token", ["stw_wrong", "Bearer x", "ü"])
def test_a_wrong_token_is_refused_in_words(visit: Visit, token: str) -> None:
    page = visit.open()
    visit.sign_in(page, token)
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.locator(".graphiql-container")).to_have_count(0)
    visit.sign_in(page)
    expect(page.get_by_text("admin@localhost")).to_be_visible()


def test_what_was_written_is_there_after_a_reload(visit: Visit) -> None:
    page = visit.open()
    visit.sign_in(page)
    choose(page, "CreateFolder")
    page.evaluate(
        "document.querySelector('.graphiql-editor-tool .CodeMirror').CodeMirror.setValue('{\"name\": \"mine\"}')"
    )
    # The page's policy forbids what wait_for_function does.
    for kept, text in (("query", "CreateFolder"), ("variables", "mine"), ("tabState", "mine")):
        while text not in (page.evaluate(f"localStorage.getItem('graphiql:{kept}')") or ""):
            page.wait_for_timeout(50)
    page.reload()
    expect(page.locator(".graphiql-editor-tool").first).to_contain_text("mine")
    assert tabs(page) == STARTERS
