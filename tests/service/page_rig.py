"""What the tests of the map and of the page share: a task with axes, a mixture of states, and a browser that looks."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from scheduler_rig import task

from blockyard.spec.model import RoiSpec
from blockyard.wire.messages import Outcome, Want

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
WAIT_MS = 20_000
"""How long anything may take to show; nothing is concluded from it being short."""


def grid_task(name="smooth", shape=(2, 6, 8), **fields):
    zero = (0,) * len(shape)
    total, block = tuple(10 * n for n in shape), (10,) * len(shape)
    return task(
        name, total_roi=RoiSpec(zero, total), read_roi=RoiSpec(zero, block), write_roi=RoiSpec(zero, block), **fields
    )


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


@contextlib.asynccontextmanager
async def opened(chromium, base, link="/", expected=("401",), **options):
    """A browser with the page open, as a new visitor has it.

    Nothing that the page does may be an error to the browser, but for what is `expected`, and nothing may be asked for
    outside of `base`.
    """
    from playwright.async_api import async_playwright, expect

    expect.set_options(timeout=WAIT_MS)
    wrong, outside = [], []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            context = await browser.new_context(**({"viewport": {"width": 1280, "height": 1400}} | options))
            page = await context.new_page()
            page.set_default_timeout(WAIT_MS)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
            page.on("request", lambda asked: outside.append(asked.url) if not asked.url.startswith(base) else None)
            await page.goto(base + link)
            yield page
            errors = [said for said in wrong if not any(part in said for part in expected)]
            assert outside == []
            assert errors == []
        finally:
            await browser.close()


def shots_in(folder):
    """Where screenshots go: BLOCKYARD_SCREENSHOTS keeps them."""
    shots = Path(os.environ.get("BLOCKYARD_SCREENSHOTS") or folder / "screenshots")
    shots.mkdir(parents=True, exist_ok=True)
    return shots


class Prefixed:
    """A proxy as an ingress is: what begins with the prefix goes on without it, all else is 404."""

    def __init__(self, base, prefix="/lab/cells"):
        self._port, self._prefix = int(base.rpartition(":")[2]), prefix

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.base = f"http://127.0.0.1:{port}{self._prefix}"
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            method, path, rest = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
            if not path.startswith(self._prefix.encode() + b"/"):
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                there_reader, there = await asyncio.open_connection("127.0.0.1", self._port)
                one = rest.replace(b"\r\n", b"\r\nConnection: close\r\n", 1).replace(b"Connection: keep-alive\r\n", b"")
                there.write(b" ".join([method, path.removeprefix(self._prefix.encode()), one]))
                back = asyncio.ensure_future(_pass_on(there_reader, writer))
                await _pass_on(reader, there)
                await back
        writer.close()


async def _pass_on(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    writer.close()
