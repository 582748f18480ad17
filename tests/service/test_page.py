"""The page: what its API answers, and a browser that looks at a real run and steers it."""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from scheduler_rig import ANSWER_S, Worker, run_of, serving, settings_of, task, until
from test_scheduler_http import error_of, on_http

from blockyard.spec.model import RoiSpec
from blockyard.wire.messages import Outcome, Want
from blockyard_scheduler.live import Live
from blockyard_scheduler.map import MapHeader
from blockyard_scheduler.throughput import MOST_SAMPLES, Recorder


def grid_task(name="smooth", shape=(2, 6, 8), **fields):
    zero = (0,) * len(shape)
    total, block = tuple(10 * n for n in shape), (10,) * len(shape)
    return task(
        name, total_roi=RoiSpec(zero, total), read_roi=RoiSpec(zero, block), write_roi=RoiSpec(zero, block), **fields
    )


def unpack(body):
    (length,) = struct.unpack_from("<I", body)
    header = msgspec.json.decode(body[4 : 4 + length], type=MapHeader)
    planes = np.frombuffer(body, f"<{header.item}", offset=4 + length).reshape(-1, *header.cells)
    return header, dict(zip(header.states, planes, strict=True))


async def mixed(worker):
    """Of the first ten blocks leased: five done, one skipped, two failed, and two still held; give their ids."""
    numbers, blocks = [], []
    while len(numbers) < 10:
        more = await worker.take(10 - len(numbers))
        numbers, blocks = numbers + more[0], blocks + more[1]
    worker.say(Want(0))
    for part, outcome in (
        (slice(0, 5), Outcome.SUCCESS),
        (slice(5, 6), Outcome.SKIPPED),
        (slice(6, 8), Outcome.FAILED),
    ):
        await worker.released(numbers[part], outcome, message="voxel 7 is NaN")
    return blocks


# ----- the map ------------------------------------------------------------------------------------------------------


def test_the_map_is_where_the_blocks_are(redis_url, run_name):
    """A slice shows each block of it once, in its state; a projection counts all behind one another."""

    async def test(service, http):
        async with Worker(service, slots=10) as worker:
            await worker.join()
            blocks = await mixed(worker)
            status = service.status().tasks[0]
            header, planes = unpack((await http("/api/v1/map?task=smooth&axis=0")).body)
            assert (header.shown, header.cells, header.item, header.shape) == ((1, 2), (6, 8), "u1", (2, 6, 8))
            for state in ("pending", "ready", "leased", "done", "skipped", "failed"):
                assert planes[state].sum() == getattr(status, state), state
            for at in (0, 1):
                header, planes = unpack((await http(f"/api/v1/map?task=smooth&axis=0&slice={at}")).body)
                for ids, state in ((blocks[:5], "done"), (blocks[5:6], "skipped"), (blocks[6:8], "failed")):
                    there = [tuple(i) for i in np.argwhere(planes.get(state, np.zeros((6, 8)))).tolist()]
                    where = (np.unravel_index(b, (2, 6, 8)) for b in ids)
                    assert sorted(there) == sorted((int(y), int(x)) for z, y, x in where if z == at), state
                assert sum(planes.values()).tolist() == np.ones((6, 8)).tolist()

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)


def test_a_large_grid_is_aggregated_and_a_window_is_finer(redis_url, run_name):
    """No more than `max` cells an axis; the window has the same blocks in smaller cells."""

    async def test(_, http):
        header, planes = unpack((await http("/api/v1/map?task=smooth&axis=0&max=64")).body)
        assert (header.cells, header.step, header.item) == ((63, 63), (16, 16), "u4")
        assert sum(int(plane.sum()) for plane in planes.values()) == 10**9
        header, planes = unpack(
            (await http("/api/v1/map?task=smooth&axis=0&slice=3&max=64&from=100,200&to=164,232")).body
        )
        assert (header.cells, header.step, header.begin) == ((64, 32), (1, 1), (100, 200))
        assert sum(int(plane.sum()) for plane in planes.values()) == 64 * 32

    on_http(run_of(run_name, grid_task(shape=(1000, 1000, 1000))), redis_url, test)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("map", "say which task"),
        ("map?task=smoth", "did you mean 'smooth'"),
        ("map?task=smooth&axis=3", "axis 3 is none of the grid's axes 0 .. 2"),
        ("map?task=smooth&axis=z", "'axis' is 'z', which is no integer"),
        ("map?task=smooth&axis=0&slice=2", "slice 2 is outside axis 0"),
        ("map?task=smooth&value=duraton", "there is no value 'duraton'; did you mean 'duration'"),
        ("map?task=smooth&max=5000", "max is 5000; give 1 .. 1024 cells"),
        ("map?task=smooth&from=0,0&to=9,9", "is not inside the shown axes, of (6, 8) blocks"),
        ("blocks?task=smooth&from=0,0&to=1,1,1", "'from' needs an index for each of the 3 axes"),
        ("blocks?task=smooth&from=0,0,0&to=1,1,9", "is not inside the grid (2, 6, 8)"),
        ("blocks?task=smooth&from=0,0,0&to=1,1,1&states=dun", "there is no state 'dun'"),
    ],
)
def test_a_map_that_cannot_be_is_a_sentence(redis_url, run_name, query, sentence):
    """What is asked for wrongly is said with what there is."""

    async def test(_, http):
        answer = await http("/api/v1/" + query)
        assert answer.code == 400
        assert sentence in error_of(answer)

    on_http(run_of(run_name, grid_task()), redis_url, test)


def test_a_cell_names_its_blocks(redis_url, run_name):
    """The blocks behind a cell, by state."""

    async def test(service, http):
        async with Worker(service, slots=10) as worker:
            await worker.join()
            blocks = await mixed(worker)
            found = msgspec.json.decode(
                (await http("/api/v1/blocks?task=smooth&from=0,0,0&to=2,6,8&states=failed,leased")).body
            )
        assert [b["block_id"] for b in found["failed"]] == sorted(blocks[6:8])
        assert set(blocks[8:]) <= {b["block_id"] for b in found["leased"]}
        assert [tuple(b["index"]) for b in found["failed"]] == [
            tuple(int(i) for i in np.unravel_index(b["block_id"], (2, 6, 8))) for b in found["failed"]
        ]

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)


def test_tasks_say_their_grids(redis_url, run_name):
    """What the page needs to know before it asks for a map."""

    async def test(_, http):
        (found,) = msgspec.json.decode((await http("/api/v1/tasks")).body)
        assert (found["id"], found["shape"], found["total"]) == ("smooth", [2, 6, 8], 96)

    on_http(run_of(run_name, grid_task()), redis_url, test)


def test_maps_need_the_token_where_reading_does(redis_url, run_name):
    """Off loopback all that tells of the run asks for the token."""

    async def test(_, http):
        for path in ("map?task=smooth", "tasks", "events", "blocks?task=smooth&from=0,0,0&to=1,1,1"):
            assert (await http("/api/v1/" + path)).code == 401
        assert (await http("/api/v1/map?task=smooth", Authorization="Bearer geheim")).code == 200

    on_http(run_of(run_name, grid_task()), redis_url, test, token="geheim", http_host="0.0.0.0")


# ----- events -------------------------------------------------------------------------------------------------------


class Listener:
    """Takes server-sent events apart; a closed page is a closed connection."""

    def __init__(self, service):
        self._port = service._http_port

    async def __aenter__(self):
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(b"GET /api/v1/events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert b" 200 OK" in head
        assert b"Content-Type: text/event-stream" in head
        return self

    async def __aexit__(self, *_):
        self._writer.transport.abort()

    async def next(self):
        async with asyncio.timeout(ANSWER_S):
            event = await self._reader.readuntil(b"\n\n")
        kind, text = event.strip().split(b"\n", 1)
        assert kind == b"event: run"
        return msgspec.json.decode(text.removeprefix(b"data: "), type=Live)

    async def ended(self):
        async with asyncio.timeout(ANSWER_S):
            await self._reader.read()


def test_events_tell_the_run_until_the_listener_leaves(redis_url, run_name):
    """One after the other, with what changed; throughput with the first; nothing is left when nobody listens."""

    async def test(service, _):
        async with Worker(service, slots=10) as worker:
            await worker.join()
            async with Listener(service) as listener:
                live = await listener.next()
                assert (live.run, live.state, live.tasks[0].done) == (run_name, "running", 0)
                assert [(pool.pool, pool.connected, pool.slots) for pool in live.pools] == [("default", 1, 10)]
                assert sum(live.throughput.tasks["smooth"]) == 0
                await mixed(worker)
                while live.tasks[0].done < 5:
                    live = await listener.next()
            async with Listener(service) as listener:
                assert sum((await listener.next()).throughput.tasks["smooth"]) == 6

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)


def test_a_scheduler_ends_while_somebody_listens(redis_url, run_name):
    """An open page keeps no scheduler alive."""

    async def main():
        async with serving(settings_of(run_of(run_name), redis_url)) as service:
            listener = await Listener(service).__aenter__()
            await listener.next()
        await listener.ended()
        await listener.__aexit__()

    asyncio.run(main())


def test_samples_get_coarser_as_a_run_gets_longer():
    """Never more than the most, and their sum is what was finished."""
    recorder = Recorder()
    for second in range(5000):
        recorder.add({"smooth": 3 * second, "other": second // 10}, 100.0 + second)
    found = recorder.give()
    assert found.bucket_s == 32.0
    assert len(found.tasks["smooth"]) <= MOST_SAMPLES
    assert (sum(found.tasks["smooth"]), sum(found.tasks["other"])) == (3 * 4999, 499)
    assert found.tasks["smooth"][1] == 96


def test_a_long_silence_is_one_sample():
    """A loop that was held up, or a machine that slept, takes no time to make up for."""
    recorder = Recorder()
    recorder.add({"smooth": 0}, 0.0)
    recorder.add({"smooth": 7}, 1e6)
    assert sum(recorder.give().tasks["smooth"]) == 7


# ----- in a browser -------------------------------------------------------------------------------------------------

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def shots(tmp_path):
    """Where screenshots go: BLOCKYARD_SCREENSHOTS keeps them."""
    folder = Path(os.environ.get("BLOCKYARD_SCREENSHOTS") or tmp_path / "screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


async def look(browser, base, test, **options):
    """Open the page as a new visitor; nothing it does may be an error to the browser."""
    from playwright.async_api import expect

    context = await browser.new_context(viewport={"width": 1280, "height": 1400}, **options)
    page = await context.new_page()
    page.set_default_timeout(20_000)
    expect.set_options(timeout=20_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    outside = []
    page.on("request", lambda asked: outside.append(asked.url) if not asked.url.startswith(base) else None)
    await page.goto(base + "/")
    await test(page, expect)
    await context.close()
    assert (outside, [said for said in wrong if "401" not in said]) == ([], [])


@pytest.mark.program("chromium")
def test_somebody_looks_at_a_run_and_steers_it(redis_url, run_name, chromium, shots):
    """Progress, the map by mouse and keyboard, a block's error and retry; acting needs the token, typed in once."""
    from playwright.async_api import async_playwright

    async def steer(service, page, expect):
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
        await expect(page.locator("#detail")).to_contain_text("writes")
        await page.locator("#detail").get_by_role("button", name="Retry this block").click()
        await page.locator("#token-value").fill("geheim")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        assert service.status().tasks[0].failed == 2
        await page.locator("#detail").get_by_role("button", name="Retry this block").click()
        await until(lambda: service.status().tasks[0].failed == 1)
        await expect(page.locator("#detail")).to_contain_text("ready")
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator("#state")).to_have_text("paused")
        await page.get_by_role("button", name="Resume").click()
        await expect(page.locator("#state")).to_have_text("running")

    async def glance(page, expect):
        await expect(page.locator("#map-text")).to_contain_text("Of 96 blocks")
        box = await page.locator("#map").bounding_box()
        await page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        await expect(page.locator("#detail h3")).to_contain_text("Blocks from 0, ")
        await page.screenshot(path=shots / "dark.png", full_page=True)
        await page.locator("#map-value").select_option("duration")
        await expect(page.locator("#ramp")).to_contain_text("mean duration of a cell, from 1 ms to 1 ms")
        await page.locator("#map-value").select_option("attempts")
        await expect(page.locator("#ramp")).to_contain_text("mean attempts of a cell, from 1.00 to 1.00")
        await page.locator("#find-index").fill("0, 0, 0")
        await page.get_by_role("button", name="Find").click()
        await expect(page.locator("#detail h3")).to_contain_text("Block 0, 0, 0 of smooth")
        await expect(page.locator("#detail dd").first).to_contain_text("done")
        await expect(page.locator("#detail dl")).to_contain_text("worker")
        await page.locator("#find-index").fill("1, 2, 3")
        await page.get_by_role("button", name="Find").click()
        await expect(page.locator("#detail h3")).to_contain_text("Block 1, 2, 3 of smooth")
        # Where a slice is shown, that of the block is; what is marked is the block.
        await page.locator("#cut-0").check()
        await page.locator("#cuts input[type=number]").fill("0")
        await page.get_by_role("button", name="Find").click()
        await expect(page.locator("#map-text")).to_contain_text("slice 1 of axis 0")
        await page.locator("#map").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#detail h3")).to_contain_text("Block 1, 2, 3 of smooth")
        await page.locator("#map").screenshot(path=shots / "attempts-dark.png")
        await page.set_viewport_size({"width": 400, "height": 900})
        await page.screenshot(path=shots / "narrow-dark.png", full_page=True)
        assert await page.evaluate("() => document.documentElement.scrollWidth") <= 400

    async def test(service, http):
        async with Worker(service, slots=10, token="geheim") as worker, async_playwright() as playwright:
            await worker.join()
            await mixed(worker)
            browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            await look(browser, http.base, lambda page, expect: steer(service, page, expect), color_scheme="light")
            await look(browser, http.base, glance, color_scheme="dark")
            await browser.close()

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test, token="geheim")


@pytest.mark.program("chromium")
def test_the_page_shows_a_hundred_million_blocks(redis_url, run_name, chromium, shots):
    """The map of 464 x 464 x 464 blocks comes, and follows the run."""
    from playwright.async_api import async_playwright

    async def test(service, http):
        async def watch(page, expect):
            await expect(page.locator("#map-text")).to_contain_text("Of 99,897,344 blocks")
            async with Worker(service, slots=10) as worker:
                await worker.join()
                await mixed(worker)
                await expect(page.locator("#legend")).to_contain_text("done 5")
            await page.screenshot(path=shots / "large.png", full_page=True)

        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            await look(browser, http.base, watch, color_scheme="light")
            await browser.close()

    on_http(run_of(run_name, grid_task(shape=(464, 464, 464), max_retries=0)), redis_url, test)
