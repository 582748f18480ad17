"""Few files may be open: a sentence, or fewer slots; never a process that is there and does nothing."""

import resource

import pytest

from blockyard.spec.errors import SpecError
from blockyard_scheduler import sockets as scheduler
from blockyard_worker.open_files import slots_that_fit


@pytest.fixture
def limits(monkeypatch):
    """A limit of open files that is not that of this process: (soft, hard), as it was set last."""
    now = [1024, 4096]

    def set_limit(_, wanted):
        if now[1] != resource.RLIM_INFINITY and wanted[0] > now[1]:
            raise ValueError("not allowed to raise maximum limit")
        now[:] = wanted

    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(now))
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    return now


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "fit"),
    [
        (1024, 4096, 8, 8),
        (40, 40, 24, 4),
        (40, 4096, 24, 24),  # we may raise it
        (40, 80, 24, 14),
        (40, resource.RLIM_INFINITY, 5000, 5000),
        (20, 20, 3, 1),
    ],
)
def test_a_worker_has_as_many_slots_as_its_files_allow(limits, caplog, soft, hard, wanted, fit):
    """The limit is raised where that is allowed; fewer slots than asked for are said with what to do."""
    limits[:] = soft, hard
    assert slots_that_fit(wanted) == fit
    said = [record.getMessage() for record in caplog.records]
    assert bool(said) == (fit < wanted)
    assert all(f"{fit} slots in place of {wanted}" in line and "ulimit -n" in line for line in said)


@pytest.mark.parametrize("hard", [20, scheduler.SPARE_FILES])
def test_a_scheduler_that_could_take_no_worker_is_refused(limits, hard):
    """At its start, with the number it has and a command that helps."""
    limits[:] = hard, hard
    with pytest.raises(SpecError, match=rf"only {hard} files.*ulimit -n \d+"):
        scheduler.most_connections()


def test_a_scheduler_takes_as_many_workers_as_it_may(limits):
    """Beside what it needs for itself."""
    limits[:] = 256, 1000
    assert scheduler.most_connections() == 1000 - scheduler.SPARE_FILES
