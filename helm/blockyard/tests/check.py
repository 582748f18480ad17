"""`helm test`: look at the release's scheduler, then run a tiny pipeline in this pod; a complaint is one line.

Call it with the scheduler's URL. The folder of this file holds the pipeline, read-only, so the run gets a copy.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
CA = Path("/run/secrets/tls/ca.crt")
EXPECTED = ("blockyard_build_info", "blockyard_blocks{", "blockyard_connections")


def run_tiny_pipeline() -> None:
    """Run `tiny.yaml` with a Redis, a scheduler and a worker of its own, and count what its blocks left."""
    work = Path("/tmp/tiny")  # noqa: S108  # the pod's own emptyDir
    work.mkdir()
    for name in ("tiny.yaml", "tiny.py"):
        shutil.copyfile(HERE / name, work / name)
    subprocess.run(["blockyard", "run", "tiny.yaml", "--workers", "1"], cwd=work, check=True, timeout=300)
    blocks = len(list(Path("/tmp/tiny-out").iterdir()))  # noqa: S108
    if blocks != 16:
        sys.exit(f"the tiny pipeline ran {blocks} blocks, not 16")


def tls() -> ssl.SSLContext | None:
    """Give the context for https://, whose authority the chart mounts; the certificate may be for another name."""
    if not CA.exists():
        return None
    context = ssl.create_default_context(cafile=CA)
    context.check_hostname = False
    return context


def get(url: str) -> str:
    """Give the body of a page of the scheduler."""
    direct = urllib.request.build_opener(  # whatever proxy the environment names: it is our own Service
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls())
    )
    with direct.open(url, timeout=30) as answer:
        return str(answer.read().decode())


def look_at_scheduler(url: str) -> None:
    """Ask the release's scheduler whether it is alive and ready, and for its metrics."""
    for path in ("/healthz", "/readyz"):
        get(url + path)
    metrics = get(url + "/metrics")
    missing = [name for name in EXPECTED if name not in metrics]
    if missing:
        sys.exit(f"{url}/metrics lacks {', '.join(missing)}")


def main() -> None:
    """Do both."""
    look_at_scheduler(sys.argv[1])
    print(json.dumps({"scheduler": "ready", "url": sys.argv[1]}))
    run_tiny_pipeline()
    print(json.dumps({"tiny pipeline": "done", "blocks": 16}))


if __name__ == "__main__":
    main()
