"""What the extension needs of Python's own syntax."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import FrameType

T = TypeVar("T")


async def wait_for(awaitable: Awaitable[T]) -> T:
    """Makes a coroutine of anything that can be awaited: a task takes nothing less."""
    return await awaitable


def ignore_signal(_number: int, _frame: FrameType | None) -> None:
    """Handles a signal by doing nothing."""
