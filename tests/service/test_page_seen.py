"""The page for all eyes and hands: colours that agree with what is said, also without red or green; keys alone."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from page_rig import grid_task, mixed, opened, shots_in
from playwright.async_api import expect
from scheduler_rig import Worker, run_of
from test_scheduler_http import on_http

from blockyard.wire.messages import Outcome
from blockyard_scheduler.http.routes import PAGE

LOOK = """async step => {
  for (let frame = 0; frame < 2; frame++) await new Promise(requestAnimationFrame); // what is to be drawn is drawn
  // What the page says of points of the map, and the colour that is there.
  const [map, said] = ["map", "map-at"].map((id) => document.getElementById(id));
  const box = map.getBoundingClientRect();
  const pixels = map.getContext("2d").getImageData(0, 0, map.width, map.height);
  const found = [];
  for (let y = 2; y < map.height; y += step) for (let x = 2; x < map.width; x += step) {
    map.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + x + .5, clientY: box.top + y + .5 }));
    const at = 4 * (y * map.width + x);
    if (said.textContent) found.push([said.textContent, pixels.data.slice(at, at + 3).join()]);
  }
  return found;
}"""


@pytest.fixture
def shots(tmp_path):
    return shots_in(tmp_path)


async def cells_of(page):
    """The colour of each cell, by what the page says of it; signs and lines between cells are the smaller part."""
    seen = {}
    for said, colour in await page.evaluate(LOOK, 8):
        seen.setdefault(said, Counter())[colour] += 1
    most = {said: colours.most_common(1)[0] for said, colours in seen.items()}
    assert all(n > sum(seen[said].values()) / 3 for said, (_, n) in most.items())
    return {said: np.array([int(part) for part in colour.split(",")]) for said, (colour, _) in most.items()}


async def chip_colour(page, state):
    css = await page.locator(f"#legend .chip[data-of={state}]").evaluate(
        "chip => getComputedStyle(chip).backgroundColor"
    )
    return np.array([int(part) for part in re.findall(r"\d+", css)[:3]])


async def variable(page, name):
    css = await page.evaluate("name => getComputedStyle(document.documentElement).getPropertyValue(name)", name)
    return rgb(css.strip())


def rgb(text):
    return np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)])


@pytest.mark.program("chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_cell_has_the_colour_of_the_legend(redis_url, run_name, chromium, shots, scheme):
    """By state that of its block's state; by duration and attempts the nearer to the ramp's end, the more it is."""

    async def test(service, http):
        async with opened(chromium, http.base, color_scheme=scheme) as page, Worker(service, slots=10) as worker:
            await worker.join()
            await mixed(worker)
            await worker.released((await worker.take(1))[0], Outcome.FATAL)
            numbers, _ = await worker.take(4)
            for number, seconds in zip(numbers, (0.1, 0.2, 0.3, 0.4), strict=False):
                await worker.released([number], seconds=seconds)
            await page.locator("#cut-0").check()
            seen = {}
            for at in (0, 1):
                await page.locator("#cuts input[type=number]").fill(str(at))
                await page.keyboard.press("Tab")
                await expect(page.locator("#map-text")).to_contain_text(f"slice {at} of axis 0")
                seen |= await cells_of(page)
            assert len(seen) == 96
            states = {said: said.split(": ")[1] for said in seen}
            assert {"done", "skipped", "failed", "leased", "ready", "pending"} <= set(states.values())
            for said, colour in seen.items():
                assert (abs(colour - await chip_colour(page, states[said])) <= 1).all(), said
            await page.locator("#cut-0").uncheck()
            await page.locator("#map-axis").select_option("1")
            await page.locator("#cut-1").check()
            await page.locator("#cuts input[type=number]").fill("1")
            await page.keyboard.press("Tab")
            least, most, unknown = [await variable(page, f"--{name}") for name in ("least", "most", "unknown")]
            for value, unit in (("duration", r"([\d.]+) (m?s)"), ("attempts", r"([\d.]+)")):
                await page.locator("#map-value").select_option(value)
                await expect(page.locator("#ramp")).to_contain_text(f"mean {value} of a cell, from ")
                await expect(page.locator("#legend .chip")).to_have_count(0)
                known = {}
                for said, colour in (await cells_of(page)).items():
                    if found := re.search(f"; {value} {unit}$", said):
                        known[said] = float(found[1]) * (1e-3 if found[0].endswith("ms") else 1), colour
                    else:
                        assert (abs(colour - unknown) <= 1).all(), said
                await page.locator(".map").screenshot(path=shots / f"{value}-{scheme}.png")
                ordered = sorted(known.values(), key=lambda pair: pair[0])
                distances = [float(np.linalg.norm(colour - least)) for _, colour in ordered]
                assert distances == sorted(distances)
                assert ordered[0][0] < ordered[-1][0]
                assert (abs(ordered[0][1] - least) <= 1).all()
                assert (abs(ordered[-1][1] - most) <= 1).all()

    on_http(run_of(run_name, grid_task(max_retries=1)), redis_url, test, retry_backoff_s=0.0)


# Colours as they are seen with one kind of cone missing: Machado, Oliveira and Fernandes 2009, severity 1.
SIGHTS = {
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour, sight):
    """CIE L*a*b* of an sRGB colour as it is seen."""
    linear = np.where(colour / 255 <= 0.04045, colour / 255 / 12.92, ((colour / 255 + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(SIGHTS[sight]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ seen / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_can_be_told_apart_by_everybody(scheme, sight):
    """Each two states, and nothing known from the least known: five times what is just seen (CIE76: 2.3)."""
    light, dark = re.findall(r":root \{(.*?)\}", (PAGE / "page.css").read_text(), re.DOTALL)
    values = {
        name: rgb(value) for name, value in re.findall(r"--(\w+): (#\w{6});", dark if scheme == "dark" else light)
    }
    states = ["done", "skipped", "leased", "ready", "pending", "failed", "orphaned", "outside"]
    pairs = [*itertools.combinations(states, 2), ("unknown", "least"), ("least", "most")]
    apart = {pair: float(np.linalg.norm(np.subtract(*(lab(values[name], sight) for name in pair)))) for pair in pairs}
    assert {pair: distance for pair, distance in apart.items() if distance < 11.5} == {}


@pytest.mark.program("chromium")
def test_keys_alone_are_enough(redis_url, run_name, chromium):
    """Tab reaches everything and shows where it is; arrows, Enter and Escape work the map."""

    async def test(service, http):
        async with opened(chromium, http.base) as page, Worker(service, slots=10) as worker:
            await worker.join()
            await mixed(worker)
            await expect(page.locator("#failures summary")).to_have_count(1)
            await expect(page.locator("#retry")).to_be_visible()
            passed = []
            focused = """() => {
              const at = document.activeElement, { outlineStyle, outlineWidth } = getComputedStyle(at);
              return [at.id || at.textContent, outlineStyle !== "none" && outlineWidth !== "0px"];
            }"""
            while "map" not in passed:
                await page.keyboard.press("Tab")
                name, outlined = await page.evaluate(focused)
                assert outlined, name
                passed.append(name)
                assert len(passed) < 40
            controls = ["map-task", "map-value", "map-axis", "cut-0", "zoom-in", "zoom-out", "zoom-fit", "next-failed"]
            assert passed[:4] == ["pause", "retry", "cancel", "smooth"]
            assert [name for name in passed if name in controls] == controls
            # The cursor begins in the middle of 6 x 8 cells; one step with Shift is ten, and ends at the border.
            for key, said in (
                ("ArrowRight", "Blocks 0\u20131, 3, 4: "),
                ("ArrowDown", "Blocks 0\u20131, 4, 4: "),
                ("Shift+ArrowUp", "Blocks 0\u20131, 0, 4: "),
                ("Shift+ArrowLeft", "Blocks 0\u20131, 0, 0: "),
                ("PageUp", "Block 0, 0, 0: done"),
                ("PageUp", "Block 1, 0, 0: "),
                ("PageDown", "Block 0, 0, 0: done"),
            ):
                await page.keyboard.press(key)
                await expect(page.locator("#map-at")).to_contain_text(said)
            await page.keyboard.press("Enter")
            await expect(page.locator("#detail h3")).to_have_text("Block 0, 0, 0 of smooth")
            await page.keyboard.press("Tab")
            assert (await page.evaluate(focused))[0] == "Run it again"
            await page.keyboard.press("Escape")
            await expect(page.locator("#detail h3")).to_have_text("Blocks")
            assert (await page.evaluate(focused))[0] == "map"
            await page.keyboard.press("f")
            await expect(page.locator("#detail h3")).to_contain_text("Block ")
            await page.keyboard.press("Escape")
            await expect(page.locator("#map-at")).to_have_text("")

    on_http(run_of(run_name, grid_task(max_retries=0)), redis_url, test)
