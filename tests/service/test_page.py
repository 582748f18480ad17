"""The page in a browser: somebody looks at a run, finds what is wrong, and steers it."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pytest
from kubernetes_api import pod
from page_rig import Prefixed, grid_task, mixed, opened, shots_in
from playwright.async_api import expect
from scaling_rig import NAME, scaled
from scheduler_rig import Worker, run_of, until
from test_scheduler_http import on_http

from blockyard.wire.api import Notice
from blockyard.wire.messages import Heartbeat, Outcome, Running

pytestmark = pytest.mark.program("chromium")


@pytest.fixture
def shots(tmp_path):
    return shots_in(tmp_path)


async def choose_block(page, index):
    await page.locator("#find-index").fill(index)
    await page.get_by_role("button", name="Find").click()
    await expect(page.locator("#detail h3")).to_contain_text(f"Block {index} of")


def test_somebody_looks_at_a_run_and_steers_it(redis_url, run_name, chromium, shots):
    """Progress, the map by keyboard, a block's error and retry; all of it needs the token, typed in once."""

    async def test(service, http):
        async with (
            opened(chromium, http.base, expected=("401",)) as page,
            Worker(service, slots=10, token="geheim") as worker,
        ):
            await worker.join()
            await mixed(worker)
            await page.locator("#token-value").fill("geheim")
            await page.keyboard.press("Enter")
            await expect(page.locator("#run")).to_have_text(run_name)
            await expect(page.locator("#tasks")).to_contain_text("6 of 96")
            await expect(page.locator("#map-text")).to_contain_text("Of 96 blocks")
            await expect(page.locator("#failures summary")).to_contain_text("voxel 7 is NaN")
            await page.locator("#failures summary").click()
            await page.screenshot(path=shots / "failures-light.png", full_page=True)
            # A failed block, by keyboard alone.
            await page.locator("#cut-0").check()
            await page.locator("#cuts input[type=number]").fill("1")
            await page.locator("#map").focus()
            await page.keyboard.press("f")
            await expect(page.locator("#detail")).to_contain_text("failed for good")
            await expect(page.locator("#detail dl")).to_contain_text("failed at attempt")
            assert service.status().tasks[0].failed == 2
            await page.locator("#detail").get_by_role("button", name="Retry this block").click()
            await until(lambda: service.status().tasks[0].failed == 1)
            await expect(page.locator("#detail dl")).to_contain_text("ready to run")
            await page.get_by_role("button", name="Pause").click()
            await expect(page.locator("#state")).to_have_text("paused")
            await page.get_by_role("button", name="Resume").click()
            await expect(page.locator("#state")).to_have_text("running")

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test, token="geheim")


def test_the_page_fits_a_telephone_and_the_dark(redis_url, run_name, chromium, shots):
    """By mouse: a cell, a block that was typed in, its slice; nothing is wider than the screen."""

    async def test(service, http):
        async with opened(chromium, http.base, color_scheme="dark") as page, Worker(service, slots=10) as worker:
            await worker.join()
            await mixed(worker)
            await expect(page.locator("#map-text")).to_contain_text("Of 96 blocks")
            box = await page.locator("#map").bounding_box()
            await page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            await expect(page.locator("#detail h3")).to_contain_text("Blocks from 0, ")
            await page.screenshot(path=shots / "dark.png", full_page=True)
            await choose_block(page, "0, 0, 0")
            await expect(page.locator("#detail dl")).to_contain_text("done")
            await expect(page.locator("#detail dl")).to_contain_text("worker")
            # Where a slice is shown, that of the block is; what is marked is the block.
            await page.locator("#cut-0").check()
            await page.locator("#cuts input[type=number]").fill("0")
            await choose_block(page, "1, 2, 3")
            await expect(page.locator("#map-text")).to_contain_text("slice 1 of axis 0")
            await expect(page.locator("#map-at")).to_contain_text("Block 1, 2, 3: ready")
            await page.set_viewport_size({"width": 390, "height": 844})
            await page.screenshot(path=shots / "narrow-dark.png", full_page=True)
            assert await page.evaluate("() => document.documentElement.scrollWidth") <= 390

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)


def test_answers_that_break_off_are_asked_for_again(redis_url, run_name, chromium):
    """The tasks at first, and a picture of the map in the middle: the page goes on with the next event."""

    async def test(service, http):
        expected = ("401", "503", "DataView")
        async with opened(chromium, http.base, expected=expected) as page, Worker(service, slots=10) as worker:
            broken = {"tasks": 1, "map": 1}

            async def answer(route):
                name = route.request.url.partition("/api/v1/")[2].partition("?")[0]
                if broken.get(name):
                    broken[name] -= 1
                    await route.fulfill(status=503 if name == "tasks" else 200, body=b"")
                else:
                    await route.continue_()

            await page.route("**/api/v1/*", answer)
            await page.reload()
            await worker.join()
            await mixed(worker)
            await expect(page.locator("#map-text")).to_contain_text("Of 96 blocks")
            await expect(page.locator("#map-text")).to_contain_text("done")
            assert broken == {"tasks": 0, "map": 0}

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)


def test_an_address_holds_what_is_shown(redis_url, run_name, chromium):
    """Task, axis, slice, colours and block: for a link, a reload, back and forward, and behind a path prefix."""

    async def shown(page):
        controls = [await page.locator(f"#{name}").input_value() for name in ("map-task", "map-axis", "map-value")]
        slices = [await one.input_value() for one in await page.locator("#cuts input[type=number]:enabled").all()]
        return [*controls, *slices]

    async def test(_, http):
        link = "/#task=other&axis=1&slice=3&colour=attempts&block=1,3,2&token=whatever"
        async with Prefixed(http.base) as proxy, opened(chromium, proxy.base, link) as page:
            for _ in range(2):
                await expect(page.locator("#detail h3")).to_have_text("Block 1, 3, 2 of other")
                await expect(page.locator("#map-text")).to_contain_text("slice 3 of axis 1")
                await expect(page.locator("#map-at")).to_contain_text("Block 1, 3, 2: ready")
                assert await shown(page) == ["other", "1", "attempts", "3"]
                assert page.url == proxy.base + link.removesuffix("&token=whatever")
                await page.reload()
            await page.locator("#map-value").select_option("state")
            await page.get_by_role("button", name="smooth").click()
            await expect(page.locator("#detail h3")).to_have_text("Blocks")
            await page.locator("#map-axis").select_option("2")
            assert page.url == proxy.base + "/#task=smooth&axis=2"
            await page.go_back()
            await page.go_back()
            await expect(page.locator("#detail h3")).to_have_text("Block 1, 3, 2 of other")
            assert await shown(page) == ["other", "1", "state", "3"]
            await page.go_forward()
            await expect(page.locator("#map-text")).to_contain_text("Task smooth, seen through")
            # What an address says of another run is left out.
            await page.goto(proxy.base + "/#task=smoth&axis=7&slice=99&colour=red&block=9,9,9,%")
            await page.reload()
            await expect(page.locator("#map-text")).to_contain_text("Task smooth, seen through all 2 blocks of axis 0")

    on_http(run_of(run_name, grid_task(), grid_task("other", (2, 6, 4))), redis_url, test)


def test_one_kind_of_failure_is_retried_without_the_others(redis_url, run_name, chromium):
    """Whatever the numbers in its message are; the blocks of a group lead to the map."""

    async def test(service, http):
        async with opened(chromium, http.base) as page, Worker(service, slots=9) as worker:
            await worker.join()
            numbers, blocks = [], []
            while len(numbers) < 9:
                more = await worker.take(9 - len(numbers))
                numbers, blocks = numbers + more[0], blocks + more[1]
            for at in range(4):
                await worker.released(numbers[at : at + 1], Outcome.FAILED, message=f"voxel {at} is NaN")
            await worker.released(numbers[4:6], Outcome.FAILED, message="the disk is full")
            groups = page.locator("#failures details")
            await expect(groups).to_have_count(2)
            await expect(groups.nth(0)).to_contain_text("4 blocks failed for good")
            for group in (groups.nth(0), groups.nth(1)):
                await group.locator("summary").click()
            index = ", ".join(str(int(i)) for i in np.unravel_index(blocks[0], (2, 6, 8)))
            await groups.nth(0).get_by_role("button", name=index, exact=True).click()
            await expect(page.locator("#detail h3")).to_have_text(f"Block {index} of smooth")
            await groups.nth(0).get_by_role("button", name="Retry these 4 blocks").click()
            await expect(page.locator("#message")).to_contain_text("4 blocks wait to be run again")
            await expect(page.locator("#tasks td[data-label=failed]")).to_have_text("2")
            await expect(groups.filter(has_text="voxel")).to_contain_text("all tried again")
            await expect(groups.filter(has_text="disk")).to_contain_text("2 blocks failed for good")
            await expect(groups.filter(has_text="voxel").locator("pre")).to_be_hidden()
            assert await groups.nth(0).get_attribute("open") is not None  # what is open stays open

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)


def test_workers_are_shown_one_by_one(redis_url, run_name, chromium):
    """Pool, slots, what each runs and for how long, what it has done, and one that is gone."""

    async def test(service, http):
        two, ten = Worker(service, "w2", slots=2), Worker(service, "w10", slots=1, pool="gpu")
        async with opened(chromium, http.base) as page, two:
            await two.join()
            numbers, blocks = await two.take(2)
            async with ten:
                await ten.join()
                await two.released(numbers[:1])
                two.say(Heartbeat(1.0, (Running(numbers[1], 70.0),)))
                rows = page.locator("#workers .each tbody tr")
                await expect(rows).to_have_count(2)
                index = ", ".join(str(int(i)) for i in np.unravel_index(blocks[1], (2, 6, 8)))
                await expect(rows.nth(0)).to_contain_text("w2")
                await expect(rows.nth(0)).to_contain_text(re.compile(rf"1 of 2.*{index} of smooth, 1 min 1\d s"))
                await expect(rows.nth(1)).to_contain_text(re.compile("w10.*gpu.*0 of 1.*nothing.*0.*now"))
                await expect(page.locator("#workers .pools tbody tr")).to_have_count(2)
                await rows.nth(0).get_by_role("button", name=index).click()
                await expect(page.locator("#detail h3")).to_have_text(f"Block {index} of smooth")
            await expect(rows.nth(1)).to_contain_text("not connected")

    on_http(run_of(run_name, grid_task(), grid_task("train", pool="gpu")), redis_url, test)


def test_a_done_block_is_run_again_after_a_question(redis_url, run_name, chromium):
    """With what depends on it; a no changes nothing."""

    async def test(service, http):
        async with opened(chromium, http.base) as page, Worker(service, slots=10) as worker:
            await worker.join()
            await mixed(worker)
            done = service.status().tasks[0].done
            await choose_block(page, "0, 0, 0")
            await expect(page.locator("#detail dl")).to_contain_text("done at attempt")
            asked = []
            page.once("dialog", lambda dialog: asked.append(dialog.message) or dialog.dismiss())
            await page.locator("#detail").get_by_role("button", name="Run it again").click()
            assert "and all that depends on it?" in asked[0]
            await expect(page.locator("#detail").get_by_role("button", name="Run it again")).to_be_enabled()
            assert service.status().tasks[0].done == done
            page.once("dialog", lambda dialog: dialog.accept())
            await page.locator("#detail").get_by_role("button", name="Run it again").click()
            await expect(page.locator("#message")).to_contain_text("1 block waits to be run again")
            await expect(page.locator("#detail dl")).not_to_contain_text("done at attempt")
            assert service.status().tasks[0].done == done - 1

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)


def test_throughput_is_drawn_by_task_in_blocks_or_voxels(redis_url, run_name, chromium):
    """Each task by itself, and all together."""

    async def test(service, http):
        async with opened(chromium, http.base) as page, Worker(service, slots=10) as worker:
            await worker.join()
            await worker.released((await worker.take(5))[0])
            rows = page.locator("#throughput .speed")
            await expect(rows).to_have_count(3)
            await expect(rows.nth(0)).to_contain_text(re.compile("all tasks.* / s at most"))
            await expect(rows.nth(1)).to_contain_text(re.compile("smooth.* on average"))
            await expect(rows.nth(2)).to_contain_text("othernothing yet")
            inked = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, 4).data.some(byte => byte)"
            assert await rows.nth(1).locator("canvas").evaluate(inked)  # its highest point is at the top
            assert not await rows.nth(2).locator("canvas").evaluate(inked)
            await page.locator("#throughput-unit").select_option("voxels")
            await expect(rows.nth(1)).to_contain_text(re.compile(r"smooth[\d.]+( k)? voxels / s now"))

    on_http(run_of(run_name, grid_task(), grid_task("other", requires=("smooth",))), redis_url, test)


def test_pools_on_kubernetes_are_shown_and_scaled(redis_url, run_name, chromium, monkeypatch, shots):
    """Pods asked for and ready, why others are missing, a person's number, and back to the scheduler's."""

    async def main():
        async with scaled(redis_url, run_name, monkeypatch, min=1) as (api, service):
            unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            conditions = [unschedulable | {"message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}]
            api.pods["w-1"] = pod("w-1", phase="Pending", conditions=conditions)
            async with opened(chromium, f"http://127.0.0.1:{service._http_port}") as page:
                pool = page.locator("#kubernetes form")
                await expect(pool).to_contain_text("Pool default on Kubernetes: 8 pods asked for")
                await expect(pool).to_contain_text("Decided by the scheduler.")
                await expect(pool.locator("li")).to_contain_text("3 Insufficient nvidia.com/gpu")
                await expect(pool).to_contain_text("1 cannot start yet")
                await page.screenshot(path=shots / "kubernetes.png", full_page=True)
                await pool.locator("input").fill("3")
                await pool.get_by_role("button", name="Scale").click()
                await expect(page.locator("#message")).to_contain_text("Kubernetes is asked for it")
                await expect(pool).to_contain_text("3 pods asked for")
                await expect(pool).to_contain_text("Decided by a person.")
                assert api.replicas(NAME) == 3
                await pool.get_by_role("button", name="Let the scheduler decide").click()
                await expect(pool).to_contain_text("Decided by the scheduler.")

    asyncio.run(main())


def test_reading_off_loopback_needs_the_token_in_the_page_too(redis_url, run_name, chromium, shots):
    """Nothing is shown without it; it is typed in once, or comes with the link and goes from the address."""

    async def test(_, http):
        async with opened(chromium, http.base) as page:
            await expect(page.locator("#message")).to_contain_text("The scheduler asks for its token")
            await expect(page.locator("main")).to_be_hidden()
            await page.screenshot(path=shots / "token.png")
            await expect(page.locator("#token-value")).to_be_focused()
            await page.keyboard.type("wrong")
            await page.keyboard.press("Enter")
            await expect(page.locator("#message")).to_contain_text("That is not the scheduler's token")
            await expect(page.locator("main")).to_be_hidden()
            await page.locator("#token-value").fill("geheim")
            await page.keyboard.press("Enter")
            await expect(page.locator("#tasks tbody tr")).to_have_count(1)
            await expect(page.locator("#token")).to_be_hidden()
            await page.reload()
            await expect(page.locator("#map-text")).to_contain_text("Of 96 blocks")
        async with opened(chromium, http.base, "/#token=geheim&slice=1") as page:
            await expect(page.locator("#map-text")).to_contain_text("Task smooth, slice 1 of axis 0")
            assert page.url == http.base + "/#slice=1"

    on_http(run_of(run_name, grid_task()), redis_url, test, token="geheim", http_host="0.0.0.0")


def test_what_a_person_should_know_is_at_the_top_while_it_holds(redis_url, run_name, chromium, shots):
    """Text of users is text there, not markup; it goes when it no longer holds; the metrics count it by reason."""

    async def test(service, http):
        notices = service.turns.core.notices
        async with opened(chromium, http.base) as page:
            await expect(page.locator("#state")).to_have_text("running")
            await expect(page.locator("#notices")).to_be_hidden()
            notices.put(Notice("bad_worker", "worker <b>w</b> fails all that it gets", worker="w"))
            await expect(page.locator("#notices li")).to_have_text("worker <b>w</b> fails all that it gets")
            await page.screenshot(path=shots / "notices.png")
            assert b'blockyard_notices{reason="bad_worker"} 1.0' in (await http("/metrics")).body
            notices.drop("bad_worker")
            await expect(page.locator("#notices")).to_be_hidden()

    on_http(run_of(run_name, grid_task()), redis_url, test)
