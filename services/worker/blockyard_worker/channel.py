"""What an agent and one of its slots say to each other over a socket pair, framed as in `blockyard.wire.frames`."""

from __future__ import annotations

import msgspec

from blockyard.spec.model import TaskSpec

# ----- agent to slot ------------------------------------------------------------------------------------------------


class Learn(msgspec.Struct, frozen=True, tag="learn", tag_field="t"):
    """A task that batches will name."""

    task: TaskSpec
    run: str = ""
    """Name of the run, for the log."""


class Run(msgspec.Struct, frozen=True, tag="run", tag_field="t"):
    """Run these blocks of one task, after those sent before."""

    task: str
    place: int
    """Place of the first block; they count up from there."""
    blocks: bytes
    """Block ids, ``<i8``."""
    attempts: dict[int, int]
    """Position in `blocks` to attempt, where that is not 1."""


class HandBack(msgspec.Struct, frozen=True, tag="hand_back", tag_field="t"):
    """Return back every block that has not started; answered by `HandedBack`."""


class Stop(msgspec.Struct, frozen=True, tag="stop", tag_field="t"):
    """End, once the blocks sent before are done."""


# ----- slot to agent ------------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, tag="ready", tag_field="t"):
    """The slot has started."""


class Loaded(msgspec.Struct, frozen=True, tag="loaded", tag_field="t"):
    """The slot has imported the functions of a task."""

    task: str
    code: str
    """Digest of their source; see `blockyard.client.imported`."""


class Remarked(msgspec.Struct, frozen=True, tag="remarked", tag_field="t"):
    """Something that a person should know of a task; see `blockyard.client.remarks`."""

    task: str
    text: str


class Ran(msgspec.Struct, frozen=True, tag="ran", tag_field="t"):
    """The page has news (a batch ended)."""


class Failure(msgspec.Struct, frozen=True, tag="failure", tag_field="t"):
    """Why the block at a place failed; sent before its outcome is on the page."""

    place: int
    kind: str
    message: str
    traceback: str


class HandedBack(msgspec.Struct, frozen=True, tag="handed_back", tag_field="t"):
    """No block from this place on has started, nor will it."""

    place: int


ToSlot = Learn | Run | HandBack | Stop
ToAgent = Ready | Loaded | Remarked | Ran | Failure | HandedBack
