"""``python -m blockyard_scheduler``: run one scheduler.

Exit status: 0 the run is done, or a signal ended the scheduler in order; 1 blocks failed or the run was cancelled;
2 bad input or a Redis that cannot be used; 3 another scheduler leads, or Redis lost records.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from blockyard.logs import say_always, start_logging
from blockyard.spec.errors import BlockyardError
from blockyard.wire.states import RunPhase
from blockyard_scheduler.service import Ended, SchedulerService
from blockyard_scheduler.settings import Settings, read_settings
from blockyard_scheduler.store.redis import Forgot, Refused

DONE, FAILED, BAD_INPUT, DEPOSED = 0, 1, 2, 3

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one scheduler to its end; give the exit status."""
    try:
        settings = read_settings(sys.argv[1:] if argv is None else argv, os.environ)
        start_logging(settings.log_format, settings.log_level)
        logging.getLogger("tornado.access").setLevel(logging.WARNING)
        say_always(run=settings.run.pipeline.name)
        ended = asyncio.run(_run(settings))
    except (Refused, Forgot) as error:
        log.error("%s", error)  # noqa: TRY400 - a sentence, not a traceback
        return DEPOSED
    except BlockyardError as error:
        print(error, file=sys.stderr)  # noqa: T201 - what a person at a terminal reads
        return BAD_INPUT
    return FAILED if ended.by_itself and ended.state != RunPhase.DONE else DONE


async def _run(settings: Settings) -> Ended:
    return await SchedulerService(settings).run()


if __name__ == "__main__":
    sys.exit(main())
