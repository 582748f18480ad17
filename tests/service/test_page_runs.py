"""The page of runs of every kind: real processes to their end, finished ones, standbys, a scheduler that is gone, and
grids of any size and number of axes."""

from __future__ import annotations

import asyncio
import re

import pytest
from page_rig import grid_task, mixed, opened, shots_in
from playwright.async_api import expect
from scheduler_rig import Worker, run_of, serving, settings_of, until, work_off
from test_scheduler_http import Http, on_http

from blockyard.local.run import LocalRun
from blockyard.spec.model import PipelineSpec, RunSpec
from blockyard_scheduler.service import SchedulerService

pytestmark = pytest.mark.program("chromium")

USER_CODE = """
import pathlib, time
HERE = pathlib.Path(__file__).parent

def smooth(block):
    while block.block_id >= 2 and not (HERE / "go").exists():
        time.sleep(0.01)
    if block.block_id == 1:
        raise ValueError("voxel 1 is NaN")

def fragments(block):
    pass
"""


@pytest.fixture
def shots(tmp_path):
    return shots_in(tmp_path)


def test_a_run_of_real_processes_from_its_first_blocks_to_its_end(tmp_path, run_name, chromium, shots):
    """Redis, scheduler and workers as a person starts them: what runs, what failed, and how it ended, although its
    scheduler ends with it."""
    (tmp_path / "user_code.py").write_text(USER_CODE)
    tasks = (
        grid_task(function="user_code:smooth", max_retries=0),
        grid_task("fragments", function="user_code:fragments", requires=("smooth",)),
    )
    local = LocalRun(
        RunSpec(PipelineSpec(name=run_name, tasks=tasks)), tmp_path / "run", workers=2, module_path=[str(tmp_path)]
    )

    async def look():
        async with opened(chromium, local.http_url, local.page_url.removeprefix(local.http_url), ("ERR_",)) as page:
            await expect(page.locator("#failures summary")).to_contain_text("voxel 1 is NaN")
            await page.locator("#failures summary").click()
            await expect(page.locator("#failures pre")).to_contain_text('raise ValueError("voxel 1 is NaN")')
            await expect(page.locator("#workers .each tbody")).to_contain_text(
                re.compile(r"2 of 2.*\d, \d, \d of smooth, \d+ s")
            )
            await page.screenshot(path=shots / "real-run.png", full_page=True)
            (tmp_path / "go").touch()
            await expect(page.locator("#state")).to_have_text("failed")
            await expect(page.locator("#message")).to_contain_text("The run is over and its scheduler has ended")
            await expect(page.locator("#headline")).to_contain_text("190 of 192")
            await expect(page.locator("#headline")).to_contain_text("never run (need a failed one)1")
            await expect(page.locator("#map-text")).to_contain_text("Of 96 blocks: done 99.0 %, failed 1.0 %.")
            await page.screenshot(path=shots / "over.png", full_page=True)

    with local:
        waiting = asyncio.new_event_loop()
        try:
            waiting.run_until_complete(asyncio.wait_for(_beside(look(), local), 100))
        finally:
            waiting.close()


async def _beside(look, local):
    """Look at a run while it is waited for, as `blockyard run` does."""
    ended = asyncio.get_running_loop().run_in_executor(None, local.wait)
    await look
    result = await ended
    assert not result.ok


def test_a_finished_run_says_how_it_ended(redis_url, run_name, chromium, shots):
    """What it took instead of what is left; nothing to pause or to cancel, and no worker is missed."""

    async def test(service, http):
        async with Worker(service, slots=4) as worker:
            await worker.join()
            await work_off(worker)
        async with opened(chromium, http.base) as page:
            await expect(page.locator("#state")).to_have_text("done")
            await expect(page.locator("#headline")).to_contain_text(re.compile("finished100 %blocks96 of 96took"))
            await expect(page.locator("#workers")).to_contain_text("The run is over, and no worker is connected.")
            for name in ("Pause", "Resume", "Cancel", "Retry all failed"):
                await expect(page.get_by_role("button", name=name)).to_be_hidden()
            await page.screenshot(path=shots / "done.png", full_page=True)

    on_http(run_of(run_name, grid_task()), redis_url, test)


def test_a_standby_says_who_leads_and_where_its_page_is(redis_url, run_name, chromium, shots):
    """And shows the run when it comes to lead."""

    async def main():
        settings = settings_of(run_of(run_name, grid_task()), redis_url)
        async with serving(settings) as leader:
            standby = SchedulerService(settings)
            life = asyncio.ensure_future(standby.run())
            await until(lambda: standby.leadership.leader)
            async with opened(chromium, Http(standby).base, expected=("503",)) as page:
                message = page.locator("#message")
                await expect(message).to_contain_text(f"the one at 127.0.0.1:{leader._port} does")
                await expect(message.get_by_role("link")).to_have_attribute("href", Http(leader).base + "/")
                await expect(page.locator("#state")).to_have_text("stands by")
                await page.screenshot(path=shots / "standby.png")
                leader._stop.set()
                await leader.life
                await expect(page.locator("#state")).to_have_text("running")
                await expect(page.locator("#tasks")).to_contain_text("0 of 96")
                await expect(message).to_be_hidden()
            standby._stop.set()
            await life

    asyncio.run(main())


def test_a_page_says_when_its_scheduler_is_gone_and_when_it_is_back(redis_url, run_name, chromium, shots):
    """What it shows is then old, and looks so."""

    async def main():
        settings = settings_of(run_of(run_name, grid_task(max_retries=0)), redis_url)
        async with serving(settings) as service:
            async with Worker(service, slots=10) as worker:
                await worker.join()
                await mixed(worker)
            base, port = Http(service).base, service._http_port
            context = opened(chromium, base, expected=("ERR_",))
            page = await context.__aenter__()
            await expect(page.locator("#tasks")).to_contain_text("6 of 96")
        await expect(page.locator("#state")).to_have_text("no connection")
        await expect(page.locator("#message")).to_contain_text(
            re.compile(r"What is shown is as of .*, \d+ s ago: The scheduler does not answer")
        )
        await expect(page.locator("body")).to_have_class("stale")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#message")).to_contain_text("The scheduler does not answer")
        await page.screenshot(path=shots / "gone.png")
        async with serving(settings_of(settings.run, redis_url, http_port=port)):
            await expect(page.locator("#state")).to_have_text("running")
            await expect(page.locator("body")).not_to_have_class("stale")
            await expect(page.locator("#message")).to_be_hidden()
            await context.__aexit__(None, None, None)

    asyncio.run(main())


ALONG = ", seen through all {} blocks of axis {}"
GRIDS = {
    "none": ((0, 4), "Task none: axis 0 (0 blocks) runs down, axis 1 (4 blocks) across. It has no blocks"),
    "line": ((30,), "Task line: axis 0 (30 blocks) runs in rows. Of 30 blocks"),
    "plane": ((3, 5), "Task plane: axis 0 (3 blocks) runs down, axis 1 (5 blocks) across. Of 15 blocks"),
    "volume": ((2, 3, 4), f"Task volume{ALONG.format(2, 0)}: axis 1 (3 blocks) runs down, axis 2 (4 blocks) across"),
    "five": (
        (2, 3, 2, 4, 5),
        f"Task five{ALONG.format(2, 0)}{ALONG.format(3, 1)}{ALONG.format(2, 2)}: axis 3 (4 blocks)",
    ),
}


def test_grids_of_none_to_five_axes_are_shown(redis_url, run_name, chromium, shots):
    """Each with its blocks where they are: the last one is found by its index, in words and on the map."""
    tasks = [grid_task(name, shape) for name, (shape, _) in GRIDS.items()]

    async def test(_, http):
        async with opened(chromium, http.base) as page:
            for name, (shape, words) in GRIDS.items():
                await page.get_by_role("button", name=name, exact=True).click()
                await expect(page.locator("#map-text")).to_contain_text(words)
                await expect(page.locator("#axis-label")).to_be_visible(visible=len(shape) > 2)
                await expect(page.locator("#cuts fieldset")).to_have_count(max(len(shape) - 2, 0))
                if not all(shape):
                    continue
                index = ", ".join(str(n - 1) for n in shape)
                await page.locator("#find-index").fill(index)
                await page.get_by_role("button", name="Find").click()
                await expect(page.locator("#detail h3")).to_have_text(f"Block {index} of {name}")
                for axis in range(len(shape) - 2):
                    await page.locator(f"#cut-{axis}").check()
                await page.get_by_role("button", name="Find").click()
                await expect(page.locator("#map-at")).to_contain_text(f"Block {index}: ")
                await page.locator(".map").screenshot(path=shots / f"grid-{name}.png")
            await page.locator("#find-index").fill("1, 2")
            await page.get_by_role("button", name="Find").click()
            wrong = await page.locator("#find-index").evaluate("field => field.validationMessage")
            assert wrong == "Give 5 integers, below 2, 3, 2, 4, 5."

    on_http(run_of(run_name, *tasks), redis_url, test)


def test_the_page_shows_a_hundred_million_blocks(redis_url, run_name, chromium, shots):
    """The map of 464 x 464 x 464 blocks comes, follows the run, and is finer where one looks closer."""

    async def test(service, http):
        async with opened(chromium, http.base) as page, Worker(service, slots=10) as worker:
            await expect(page.locator("#map-text")).to_contain_text("Of 99,897,344 blocks")
            await worker.join()
            await mixed(worker)
            await expect(page.locator("#legend")).to_contain_text("done 5")
            await page.screenshot(path=shots / "large.png", full_page=True)
            await page.locator("#map-value").select_option("duration")
            await expect(page.locator("#ramp")).to_contain_text("recorded by regions of 16 \u00d7 16 \u00d7 16")
            await page.locator("#map-value").select_option("state")
            await page.locator("#map").focus()
            await page.keyboard.press("f")
            for _ in range(12):
                await page.keyboard.press("+")
            await page.locator("#cut-0").check()
            await page.locator("#cuts input[type=number]").fill("0")
            await page.keyboard.press("Tab")
            await expect(page.locator("#map-at")).to_contain_text(re.compile(r"Block 0, \d+, \d+: "))
            await expect(page.locator("#failures summary")).to_contain_text("2 blocks failed for good")
            await page.screenshot(path=shots / "large-zoomed.png", full_page=True)

    on_http(run_of(run_name, grid_task(shape=(464, 464, 464), max_retries=0)), redis_url, test)
