"""The page where it can't know: what could not be asked is unknown, what is shown is old, and what was said is over."""

from __future__ import annotations

import re

import pytest
from page_rig import grid_task, mixed, opened, shots_in
from playwright.async_api import expect
from scheduler_rig import Worker, run_of
from test_page import choose_block
from test_scheduler_http import on_http

pytestmark = pytest.mark.program("chromium")
NO_LEADER = {"status": 503, "body": '{"error": "this scheduler does not lead the run"}'}
GARBAGE = {"status": 200, "body": "<html>the proxy is not amused</html>"}
STRANGE = {"status": 200, "content_type": "application/json", "body": '{"groups": 7}'}
ANSWERS = {"no leader": NO_LEADER, "garbage": GARBAGE, "strange": STRANGE, "broken": {"status": 500, "body": ""}}
ASKED = re.compile(r"api/v1/(failures|map|explain|blocks)(\?|$)")


@pytest.fixture
def shots(tmp_path):
    return shots_in(tmp_path)


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_could_not_be_asked_is_not_known(redis_url, run_name, chromium, shots, answer):
    """Failures, map and block say so, from the first moment on; asked again they are known, and later old."""

    async def test(service, http):
        async def refuse(route):
            await route.fulfill(**ANSWERS[answer])

        expected = ("401", "503", "500")
        async with opened(chromium, http.base, expected=expected) as page:
            await page.route(ASKED, refuse)
            await page.reload()
            async with Worker(service, slots=10) as worker:
                await worker.join()
                await mixed(worker)
                failures = page.get_by_role("region", name="Failures")
                await expect(failures).to_contain_text("What failed is not known: ")
                await expect(failures).not_to_contain_text("No attempt at any block has failed")
                await expect(page.locator("#map-old")).to_contain_text("The map is not known: ")
                await page.screenshot(path=shots / f"unknown-{answer}.png", full_page=True)
                await page.unroute(ASKED, refuse)
                await expect(failures).to_contain_text("voxel 7 is NaN")
                await expect(page.locator("#failures-old")).to_be_hidden()
                await expect(page.locator("#map-old")).to_be_hidden()
                await choose_block(page, "0, 0, 0")
                await expect(page.locator("#detail")).to_contain_text("Block 0, 0, 0")
                await page.route(ASKED, refuse)
                await mixed(worker)
                old = re.compile(r"What failed is as of .*, \d+ s ago: ")
                await expect(page.locator("#failures-old")).to_have_text(old)
                await expect(failures).to_contain_text("voxel 7 is NaN")
                await expect(page.locator("#map-old")).to_have_text(re.compile(r"The map is as of .*, \d+ s ago: "))
                await expect(page.locator("#detail")).to_contain_text(
                    re.compile(r"This block is as of .*, \d+ s ago: ")
                )
                await page.screenshot(path=shots / f"old-{answer}.png", full_page=True)

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)


def test_a_run_without_failures_says_so_once_it_knows(redis_url, run_name, chromium):
    """And not before: until the first answer nothing is known."""

    async def test(_, http):
        async with opened(chromium, http.base) as page:
            await expect(page.locator("#no-failures")).to_have_text("No attempt at any block has failed.")
            await expect(page.locator("#failures-old")).to_be_hidden()

    on_http(run_of(run_name, grid_task()), redis_url, test)


def test_what_a_button_did_is_said_while_it_is_true(redis_url, run_name, chromium):
    """Paused here, resumed elsewhere: nothing says any more that the run is paused."""

    async def test(_, http):
        async with opened(chromium, http.base) as page:
            await page.get_by_role("button", name="Pause").click()
            await expect(page.locator("#message")).to_have_text("The run is paused.")
            await expect(page.locator("#state")).to_have_text("paused")
            assert (await http.post("/api/v1/resume")).code == 200
            await expect(page.locator("#state")).to_have_text("running")
            await expect(page.locator("#message")).to_be_hidden()

    on_http(run_of(run_name, grid_task()), redis_url, test)


def test_a_link_with_a_token_works_in_a_tab_that_is_open(redis_url, run_name, chromium):
    """Pasted over the address of a page that asks for its token, or has another one, it is taken."""

    async def test(_, http):
        async with opened(chromium, http.base) as page:
            await expect(page.locator("#message")).to_contain_text("The scheduler asks for its token")
            await page.goto(http.base + "/#token=wrong")
            await expect(page.locator("#message")).to_contain_text("The scheduler asks for its token")
            await page.goto(http.base + "/#token=geheim&slice=1")
            await expect(page.locator("#map-text")).to_contain_text("Task smooth, slice 1 of axis 0")
            assert page.url == http.base + "/#slice=1"

    on_http(run_of(run_name, grid_task()), redis_url, test, token="geheim", http_host="0.0.0.0")
