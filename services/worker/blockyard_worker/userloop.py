"""A user's own worker: the process that calls a function of no argument, which drives `blockyard.Client` itself.

Started by the agent as ``python -m blockyard_worker.userloop REFERENCE [PICKLE_DIR]``. SIGTERM has its Clients give
None after the block that runs, so that an ordinary loop ends by itself; a second one ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from blockyard.logs import say_always
from blockyard.spec.errors import BlockyardError
from blockyard.spec.functions import has_call, load_function
from blockyard_worker.process import process_output


def stop(_number: int, _frame: FrameType | None) -> None:
    """Let the loop end; the second time, at once."""
    from blockyard.client.client import request_stop

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    request_stop()


def main(argv: list[str]) -> int:
    """Call the user's function: ``REFERENCE [PICKLE_DIR]``."""
    signal.signal(signal.SIGTERM, stop)
    process_output(os.environ).install()
    say_always(run=os.environ.get("BLOCKYARD_RUN", ""))
    try:
        function = load_function(argv[0], pickle_dir=argv[1] if len(argv) > 1 else None)
    except BlockyardError as error:
        sys.stderr.write(f"blockyard worker: {error}\n")
        return 2
    if has_call(function):
        function = function()
    function()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
