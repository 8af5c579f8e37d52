"""The cluster's page in Debian's Chromium: at any size, in either scheme, with the keyboard, and without scripts.

Clusters are stand-ins (tests/servers/pages.py); of real members asks tests/e2e/test_the_page.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from playwright.async_api import Browser

from tests.servers import browser as browsers
from tests.servers import pages
from tests.servers.browser import SCHEMES, WIDTHS, Scheme, window


@pytest.fixture
async def chromium(needs: Callable[[str], None]) -> AsyncIterator[Browser]:
    needs("chromium")
    async with browsers.browser() as opened:
        yield opened


@pytest.mark.parametrize("members", [1, 3, 50])
async def test_at_any_size_nothing_serious_stands_in_anybodys_way(chromium: Browser, members: int) -> None:
    for scheme in SCHEMES:
        for width in WIDTHS:
            async with (
                pages.serving(pages.page_of(members)) as (address, _),
                window(chromium, width=width, scheme=scheme) as seen,
            ):
                await seen.page.goto(address)
                await seen.page.wait_for_selector("#live[data-state=live]")
                # What is folded away is examined, too.
                await seen.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
                assert await seen.examined() == [], (scheme, width)
                assert await seen.is_within(), (scheme, width)
                assert seen.said == [], (scheme, width)


@pytest.mark.parametrize(
    ("name", "members", "width", "height", "scheme"),
    [
        ("page-3-light", 3, 1600, 1000, "light"),
        ("page-3-dark-narrow", 3, 400, 860, "dark"),
        ("page-50-light", 50, 1600, 1000, "light"),
    ],
)
async def test_as_the_documents_show_it(
    chromium: Browser, name: str, members: int, width: int, height: int, scheme: Scheme
) -> None:
    async with (
        pages.serving(pages.page_of(members)) as (address, _),
        window(chromium, width=width, height=height, scheme=scheme) as seen,
    ):
        await seen.page.goto(address)
        await seen.page.wait_for_selector("#live[data-state=live]")
        ground = await seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(18, 20, 23)") == (scheme == "dark")
        await seen.pictured(name)


async def test_without_scripts_all_of_it_is_there_and_the_log_can_be_searched(chromium: Browser) -> None:
    async with (
        pages.serving(pages.page_of(3)) as (address, _),
        window(chromium, scripts=False) as seen,
    ):
        await seen.page.goto(address)
        text = await seen.page.locator("main").inner_text()
        for part in (
            "Somebody is needed.",
            "proxy02",
            "Traffic",
            "Certificates",
            "Puppet CA",
            "drifted",
            "MEMBER-DOWN",
        ):
            assert part in text
        await seen.page.get_by_label("From level").select_option("ERROR")
        await seen.page.get_by_label("Text").fill("notauth")
        await seen.page.get_by_role("button", name="Show").click()
        assert "level=ERROR" in seen.page.url
        levels = await seen.page.locator("table.log td.level").all_inner_texts()
        assert set(levels) == {"ERROR"}
        assert await seen.page.get_by_label("Text").input_value() == "notauth"


async def test_the_keyboard_reaches_every_control_and_every_part_that_scrolls(chromium: Browser) -> None:
    async with pages.serving(pages.page_of(50)) as (address, _), window(chromium, width=400) as seen:
        await seen.page.goto(address)
        await seen.page.wait_for_selector("#live[data-state=live]")
        wanted = await seen.page.evaluate(
            """() => [...document.querySelectorAll('a, summary, select, input, button, [tabindex="0"]')]
              .filter((e) => e.checkVisibility()).map((e, n) => { e.dataset.stop = n; return n; })"""
        )
        reached = []
        for _ in range(len(wanted)):
            await seen.page.keyboard.press("Tab")
            reached.append(int(await seen.page.evaluate("document.activeElement.dataset.stop ?? -1")))
        # All of them, in the order in which they stand; the first leads past the links.
        assert reached == wanted
        await seen.page.evaluate("document.activeElement.blur()")
        scrolling = await seen.page.evaluate(
            """() => [...document.querySelectorAll('*')].filter((e) => e.checkVisibility() && e.tabIndex < 0
              && /auto|scroll/.test(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1
              && !e.querySelector('a, summary')).map((e) => e.outerHTML.slice(0, 80))"""
        )
        assert scrolling == []
        await seen.page.evaluate("scrollTo(0, 0)")
        await seen.page.keyboard.press("Tab")
        await seen.page.locator("a.skip").press("Enter")
        assert await seen.page.evaluate("document.activeElement.id") == "content"


async def test_what_changes_is_shown_and_said_and_what_a_reader_does_stays(chromium: Browser) -> None:
    async with (
        pages.serving(pages.page_of(3, troubled=False)) as (address, watch),
        window(chromium) as seen,
    ):
        page = seen.page
        await page.goto(address)
        await page.wait_for_selector("#live[data-state=live]")
        await page.locator("summary", has_text="puppet ").first.click()
        await page.get_by_label("Text").fill("half a wo")
        await page.get_by_label("Text").focus()
        await page.evaluate("document.querySelector('#section-log .log').closest('.scroll').scrollTop = 40")
        log = pages.page_of(3).logs
        fresh = {"timestamp": pages.NOW.timestamp(), "level": "WARN", "message": "quite new", "member": pages.name(2)}
        watch.show(replace(pages.page_of(3), logs={**log, "logs": [*log["logs"], fresh]}))
        await page.wait_for_selector(".matrix td.unreachable")
        await page.get_by_text("quite new").wait_for()
        assert await page.locator("#said").inner_text() == "proxy02 is unreachable"
        assert "Somebody is needed." in await page.locator(".verdict").inner_text()
        # What was opened, typed and scrolled to is as it was.
        assert await page.locator("details[data-key='traffic-puppet']").get_attribute("open") is not None
        assert await page.get_by_label("Text").input_value() == "half a wo"
        assert await page.evaluate("document.activeElement.name") == "text"
        assert await page.evaluate("document.querySelector('#section-log .log').closest('.scroll').scrollTop") == 40
        assert seen.said == []


async def test_a_stream_that_was_lost_is_said_and_taken_up_again(chromium: Browser) -> None:
    async with window(chromium) as seen:
        async with pages.serving(pages.page_of(1)) as (address, _):
            await seen.page.goto(address)
            await seen.page.wait_for_selector("#live[data-state=live]")
        await seen.page.wait_for_selector("#live[data-state=lost]")
        assert "Not live since" in await seen.page.locator("#live").inner_text()
        # What was there stays.
        assert "proxy01" in await seen.page.locator(".matrix").inner_text()
