"""How many slots the limit of open files carries."""

from __future__ import annotations

import logging
import resource

FILES_OF_A_SLOT, SPARE_FILES = 4, 24
"""Files that an agent has open for each of its slots, and for itself."""

log = logging.getLogger("blockyard.worker")


def slots_that_fit(wanted: int) -> int:
    """Return how many slots the limit of open files carries, which is raised as far as we may; at most `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if SPARE_FILES + FILES_OF_A_SLOT * wanted <= soft:
        return wanted
    files = hard if hard != resource.RLIM_INFINITY else max(soft, SPARE_FILES + FILES_OF_A_SLOT * wanted)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    except (ValueError, OSError):  # some systems refuse their own hard limit
        files = soft
    fit = max(min(wanted, (files - SPARE_FILES) // FILES_OF_A_SLOT), 1)
    if fit < wanted:
        log.warning(
            "this worker may open only %d files: %d slots in place of %d; for more raise the limit (ulimit -n)",
            files,
            fit,
            wanted,
        )
    return fit
