"""An event loop whose clock is moved by what waits on it: seconds cost nothing, and no load of the machine adds any."""

import asyncio
import selectors


class _Skips(selectors.SelectSelector):
    """Waits for no file; the time that it was to wait has passed at once."""

    now_s = 0.0

    def select(self, timeout=None):
        assert timeout is not None, "all wait for something that never comes"
        self.now_s += max(timeout, 0.0)
        return []


class VirtualTime(asyncio.SelectorEventLoop):
    """For code that sleeps and asks `loop.time` alone; sockets and threads are never heard."""

    def __init__(self):
        self._skips = _Skips()
        super().__init__(self._skips)

    def time(self):
        return self._skips.now_s


def in_virtual_time(job):
    """What the coroutine function `job` gives; it is handed the clock, which begins at 0."""
    with asyncio.Runner(loop_factory=VirtualTime) as runner:
        return runner.run(job(runner.get_loop().time))
