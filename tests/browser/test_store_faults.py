"""The Model Store page where things go wrong, and what it shows to whom."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.shop import (
    INFECTED,
    LONG_ID,
    README,
    SUSPICIOUS,
    Shop,
    Visit,
    barriers,
    overflows,
    visiting,
)
from tests.browser.test_store import ends

# When colours have changed as they should.
SETTLED = """async () => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  for (let frame = 0; frame < 300 && !dark.matches; frame += 1) {
    await new Promise((next) => requestAnimationFrame(next));
  }
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  await Promise.all(document.getAnimations().map((each) => each.finished.catch(() => undefined)));
}"""

expect.set_options(timeout=15_000)


@pytest.fixture
def visit(browser: Browser, shop: Shop) -> Iterator[Visit]:
    with visiting(browser, shop) as visit:
        yield visit


# Tasks.


def test_a_slow_import_survives_a_reload_and_is_cancelled(visit: Visit) -> None:
    shop, person = visit.shop, visit.shop.person()
    _, folder = shop.folder(person)
    model = shop.model({"model.bin": 8 << 20})
    with shop.slow(model, 512 << 10):
        task = shop.begin(person, model, folder)
        page = visit.open(person, f"/tasks/{task}")
        bar = page.get_by_role("progressbar")
        expect(page.locator(".task-head .tag")).to_have_text("Running")
        expect(page.locator(".pace-facts")).to_contain_text("/s")
        expect(bar).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]"))
        page.reload()
        expect(bar).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]"))
        visit.go(page, "/tasks")
        expect(page.locator(".task-row")).to_contain_text("Running")
        page.get_by_role("link", name=f"{model}@main").click()
        page.get_by_role("button", name="Cancel").click()
        ends(page, "Cancelled")
    assert shop.status(task) == "CANCELLED"
    page.get_by_role("button", name=re.compile("again|Retry", re.IGNORECASE)).first.click()
    expect(page).not_to_have_url(re.compile(task))
    ends(page, "Done")


def test_an_infected_model_fails_and_its_findings_are_shown(visit: Visit) -> None:
    shop, person = visit.shop, visit.shop.person()
    _, folder = shop.folder(person)
    model = shop.model({"config.json": b"{}", "pytorch_model.bin": INFECTED})
    task = shop.begin(person, model, folder)
    page = visit.open(person, f"/tasks/{task}")
    ends(page, "Failed")
    findings = page.get_by_role("list", name="Findings").get_by_role("listitem")
    expect(findings.first).to_contain_text("pytorch_model.bin")
    expect(page.get_by_role("list", name="Findings")).to_contain_text("system")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    assert list(shop.directory(person, folder).iterdir()) == []


@pytest.mark.parametrize("decision", ["Approve", "Reject"])
def test_an_administrator_decides_what_was_flagged(visit: Visit, browser: Browser, decision: str) -> None:
    shop, person = visit.shop, visit.shop.person()
    _, folder = shop.folder(person)
    model = shop.model({"config.json": SUSPICIOUS, "model.bin": 1000})
    task = shop.begin(person, model, folder)
    page = visit.open(person, f"/tasks/{task}")
    ends(page, "Needs approval")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    with visiting(browser, shop) as admins:
        theirs = admins.open(shop.admin, f"/tasks/{task}")
        expect(theirs.get_by_role("list", name="Findings")).to_contain_text("config.json")
        theirs.get_by_role("button", name=decision).click()
        if decision == "Reject":
            theirs.get_by_role("dialog").get_by_label("Reason").fill("not what we want")
            theirs.get_by_role("dialog").get_by_role("button", name="Reject").click()
        outcome = "Done" if decision == "Approve" else "Failed"
        ends(theirs, outcome)
    ends(page, outcome)
    if decision == "Reject":
        expect(page.get_by_text("not what we want").first).to_be_visible()


def test_the_page_finds_back_after_the_manager_was_killed(visit: Visit) -> None:
    shop, person = visit.shop, visit.shop.person()
    _, folder = shop.folder(person)
    model = shop.model({"model.bin": 6 << 20})
    # What a browser says of connections that are refused.
    visit.expected = [r"WebSocket connection to .* failed", r"ERR_CONNECTION_REFUSED", r"net::ERR"]
    with shop.slow(model, 1 << 20):
        task = shop.begin(person, model, folder)
        page = visit.open(person, f"/tasks/{task}")
        expect(page.get_by_role("progressbar")).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]"))
        shop.stack.kill("manager")
        expect(page.get_by_text("Reconnecting")).to_be_visible()
        expect(page.get_by_text("Reconnecting")).to_be_hidden(timeout=60_000)
    ends(page, "Done")
    assert shop.status(task) == "SUCCEEDED"


# People.


def test_two_users_see_nothing_of_each_other(visit: Visit, browser: Browser) -> None:
    shop, one, other = visit.shop, visit.shop.person("one"), visit.shop.person("other")
    name, folder = shop.folder(one, "private-models")
    model = shop.model({"config.json": b"{}"})
    task = shop.begin(one, model, folder)
    page = visit.open(one, f"/tasks/{task}")
    ends(page, "Done")
    with visiting(browser, shop) as visitor:
        theirs = visitor.open(other, "/tasks")
        expect(theirs.get_by_text("No imports yet")).to_be_visible()
        visitor.go(theirs, "/folders")
        expect(theirs.get_by_text("No folder yet")).to_be_visible()
        for path, told in ((f"/tasks/{task}", "no such task"), (f"/folders/{folder}", "no such folder")):
            visitor.go(theirs, path)
            expect(theirs.get_by_text(re.compile(told))).to_be_visible()
        visitor.go(theirs, shop.address(model))
        expect(theirs.get_by_role("button", name="Import to my folder")).to_be_visible()
        for text in (name, one.email):
            assert text not in theirs.content()
    visit.go(page, "/folders")
    expect(page.get_by_role("link", name=name)).to_be_visible()


def test_a_token_that_is_no_good_is_told_at_its_field(visit: Visit) -> None:
    shop, person = visit.shop, visit.shop.person()
    ended, revoked = shop.token(person.id), shop.token(person.id)
    found = shop.stack.graphql(
        "query ($id: ID!) { tokens(userId: $id) { edges { node { id createdAt } } } }", {"id": person.id}
    )["tokens"]["edges"]
    ids = [edge["node"]["id"] for edge in sorted(found, key=lambda edge: edge["node"]["createdAt"])]
    late = {"errors": [()]}
    while "errors" in late:  # a time that has passed when it arrives is refused
        end = datetime.now(UTC) + timedelta(seconds=1)
        late = shop.stack.post(
            """mutation ($id: ID!, $end: DateTime!) {
                 setTokenExpiry(input: {id: $id, expiresAt: $end}) { token { id } } }""",
            {"id": ids[1], "end": end.isoformat()},
        )
    shop.stack.graphql("mutation ($id: ID!) { revokeToken(input: {id: $id}) { id } }", {"id": ids[2]})
    page = visit.page()
    visit.go(page, "/folders")
    while datetime.now(UTC) <= end:
        page.wait_for_timeout(50)
    token = page.get_by_label("Token")
    for wrong, told in (
        ("stw_wrong", "no such token"),
        (ended, "expired"),
        (revoked, "revoked"),
        ("", "Enter"),
    ):
        token.fill(wrong)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text(told)
        expect(token).to_have_attribute("aria-invalid", "true")
        expect(token).to_have_value(wrong)
    token.fill(person.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(f"{shop.stack.url}/folders")
    expect(page.get_by_role("heading", name="Folders")).to_be_visible()


def test_a_session_that_ends_loses_nothing_that_was_typed(visit: Visit) -> None:
    shop, person = visit.shop, visit.shop.person()
    model = shop.model({"config.json": b"{}"})
    page = visit.open(person, shop.address(model))
    page.get_by_role("button", name="Import to my folder").click()
    name = page.get_by_label("Name of the new folder")
    name.fill("typed-by-hand")
    shop.stack.graphql(
        """mutation ($id: ID!) { setUserStatus(input: {userId: $id, status: INACTIVE}) { user { id } } }""",
        {"id": person.id},
    )
    page.get_by_role("button", name="Make folder and import").click()
    expect(page.get_by_text("Your session has ended")).to_be_visible()
    shop.stack.graphql(
        """mutation ($id: ID!) { setUserStatus(input: {userId: $id, status: ACTIVE}) { user { id } } }""",
        {"id": person.id},
    )
    page.get_by_label("Token").fill(person.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("Token")).to_be_hidden()
    expect(name).to_have_value("typed-by-hand")
    page.get_by_role("button", name="Make folder and import").click()
    ends(page, "Done")


def test_what_does_not_exist_is_told_in_words(visit: Visit) -> None:
    page = visit.open(visit.shop.admin)
    nowhere = "00000000-0000-4000-8000-000000000000"
    for path, told in (
        (f"/models/{nowhere}", "no such model"),
        ("/models/nonsense", "no such model"),
        (f"/tasks/{nowhere}", "no such task"),
        (f"/folders/{nowhere}", "no such folder"),
    ):
        visit.go(page, path)
        expect(page.get_by_text(re.compile(told))).to_be_visible()
    visit.go(page, "/")
    page.get_by_role("button", name="Scan the registry").first.click()
    what = page.get_by_label("What to scan")
    for typed in ("nobody/no-such-model", "zzzzqqqq-nothing-has-this-name"):
        what.fill(typed)
        page.get_by_role("button", name="Scan", exact=True).click()
        expect(what).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_role("alert")).to_be_visible()
        expect(what).to_have_value(typed)


# How it looks to everybody.


def test_nothing_keeps_people_out_and_nothing_overflows(shop: Shop, browser: Browser) -> None:
    person = shop.person()
    name, folder = shop.folder(person, "a-folder-with-a-name-of-sixty-four-characters-" + "x" * 18)
    long = shop.model({"README.md": README.encode(), "config.json": b"{}", "a" * 100 + ".bin": 2000}, LONG_ID)
    infected = shop.model({"pytorch_model.bin": INFECTED})
    tasks = [shop.begin(person, long, folder), shop.begin(person, infected, folder)]
    with visiting(browser, shop) as waiting:
        page = waiting.open(person, f"/tasks/{tasks[0]}")
        ends(page, "Done")
        waiting.go(page, f"/tasks/{tasks[1]}")
        ends(page, "Failed")
    views = (
        "/",
        shop.address(long),
        "/tasks",
        *(f"/tasks/{task}" for task in tasks),
        "/folders",
        f"/folders/{folder}",
        f"/folders/{folder}?path={LONG_ID}/main",
    )
    assert name

    def look(page: Page, what: str) -> None:
        """Look at what is shown in light and dark, and in a narrow window."""
        expect(page.locator(".skeleton")).to_have_count(0)
        assert barriers(page) == [], f"{what} in light"
        page.emulate_media(color_scheme="dark")
        # A busy machine paints late what it knows already: what stays is a barrier.
        for _ in range(3):
            page.evaluate(SETTLED)
            found = barriers(page, "color-contrast")
            if not found:
                break
            page.wait_for_timeout(500)
        assert found == [], f"{what} in dark: {found}"
        page.set_viewport_size({"width": 360, "height": 740})
        found = overflows(page)
        assert found == [], f"{what}: {found}"
        page.emulate_media(color_scheme="light")
        page.set_viewport_size({"width": 1280, "height": 800})

    with visiting(browser, shop, reduced_motion="reduce") as visit:
        page = visit.page()
        visit.go(page, "/sign-in")
        expect(page.get_by_label("Token")).to_be_visible()
        look(page, "/sign-in")
        visit.sign_in(person)
        for view in views:
            visit.go(page, view)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            look(page, view)
        visit.go(page, shop.address(long))
        page.get_by_role("button", name="Import to my folder").click()
        expect(page.get_by_role("dialog")).to_contain_text("To fetch")
        look(page, "the dialog")
