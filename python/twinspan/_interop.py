"""What the extension needs of Python's own syntax."""

from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def wait_for(awaitable: Awaitable[T]) -> T:
    """Makes a coroutine of anything that can be awaited: a task takes nothing less."""
    return await awaitable
