"""The ideal that this machine allows: processes that take the time of one block after another; prints one JSON line.

python plain_loop.py BLOCKS WORKERS SECONDS
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from noop import take


def main() -> None:
    """Measure what the command line says, or be one of its workers."""
    if sys.argv[1] == "--work":
        blocks, seconds = int(sys.argv[2]), float(sys.argv[3])
        sys.stdin.readline()
        for _ in range(blocks):
            take(seconds)
        return
    blocks, workers, seconds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    command = [sys.executable, __file__, "--work", str(blocks // workers), seconds]
    started = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(workers)]
    time.sleep(1.0)  # their start is not what is measured
    began_s = time.monotonic()
    for worker in started:
        worker.stdin.write(b"go\n")
        worker.stdin.flush()
    for worker in started:
        worker.wait()
    steady_s = time.monotonic() - began_s
    print(json.dumps({"blocks": blocks // workers * workers, "steady_s": steady_s}))


if __name__ == "__main__":
    main()
