"""How many blocks a local run runs at once."""

import pytest

from blockyard.local import services
from blockyard.local.services import slots_of
from blockyard.spec.model import RoiSpec, TaskSpec

ONE = RoiSpec((0,), (1,))


def tasks_of(asked):
    rois = {"total_roi": ONE, "read_roi": ONE, "write_roi": ONE}
    return [TaskSpec(id=f"t{n}", function="json:dumps", num_workers=number, **rois) for n, number in enumerate(asked)]


@pytest.mark.parametrize(
    ("asked", "blocks", "workers", "slots"),
    [
        ([4, 2], [8, 8], None, 6),  # both may run at once, on any machine
        ([4], [3], None, 3),
        ([1, 1, 1], [9, 9, 9], None, 3),
        ([None, None], [9, 9], None, 3),  # those that ask for nothing share the machine
        ([None, 2], [9, 9], None, 5),
        ([None, 2], [1, 9], None, 3),
        ([4, 2], [8, 8], 3, 3),
        ([4, None], [1, 1], 64, 2),
    ],
)
def test_every_task_has_the_workers_that_it_asks_for(asked, blocks, workers, slots, monkeypatch):
    """On a machine of 3 processors; whoever says how many is obeyed; nobody needs more slots than there are blocks."""
    monkeypatch.setattr(services, "processors", lambda: 3)
    tasks = tasks_of(asked)
    assert slots_of(tasks, dict(zip((task.id for task in tasks), blocks, strict=True)), workers) == slots
