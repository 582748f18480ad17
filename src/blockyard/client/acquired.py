"""What `Client.acquire_block` gives, and what a block is charged with whose program ended."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from blockyard.client.calls import BlockFailedError
from blockyard.spec.block import Block, BlockGeometry

if TYPE_CHECKING:
    from blockyard.client.client import Client


class AcquiredBlock(Block):
    """A block that a Client leased; used with ``with`` it is released at the end, as failed after an exception."""

    __slots__ = ("_client",)

    def __init__(
        self, client: Client, geometry: BlockGeometry, task_id: str, block_id: int, attempt: int, lease: int
    ) -> None:
        super().__init__(geometry, task_id, block_id, attempt, lease)
        self._client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, frames: TracebackType | None
    ) -> None:
        if error is not None and self._client.is_copy:
            return  # a child that was forked inside leaves as it likes; the block is not its own
        if self._client.holds(self):
            self._client.finish(self, error)


class ProgramEndedError(BlockFailedError):
    """What a block is charged with that a program had when it just ended."""

    def __init__(self) -> None:
        super().__init__("exit", "the worker's program ended before it released the block")


class ToldAgainError(BlockFailedError):
    """What a block is charged with in which SIGINT came, like to the process before this one, and not to its agent."""

    def __init__(self) -> None:
        super().__init__("signal", "SIGINT ended the worker's program again, and nobody told the worker to end")


class NoBlock:
    """What ``with client.acquire_block() as block:`` enters when the task is over: `block` is None."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None
