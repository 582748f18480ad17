"""The map over HTTP: blocks by state and by value, cell by cell, and what is asked about a cell."""

from __future__ import annotations

import struct

import msgspec
import numpy as np
import pytest
from page_rig import grid_task, mixed
from scheduler_rig import Worker, run_of
from test_scheduler_http import error_of, on_http

from blockyard_scheduler.http.map import MapHeader


def unpack(body):
    (length,) = struct.unpack_from("<I", body)
    header = msgspec.json.decode(body[4 : 4 + length], type=MapHeader)
    planes = np.frombuffer(body, f"<{header.item}", offset=4 + length).reshape(-1, *header.cells)
    return header, dict(zip(header.states, planes, strict=True))


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
