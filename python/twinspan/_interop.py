"""What the extension needs of Python's own syntax."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from types import FrameType

    Scope = MutableMapping[str, object]
    Receive = Callable[[], Awaitable[Scope]]
    Send = Callable[[Scope], Awaitable[None]]
    ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
    ASGI2 = Callable[[Scope], Callable[[Receive, Send], Awaitable[None]]]

T = TypeVar("T")


async def wait_for(awaitable: Awaitable[T]) -> T:
    """Makes a coroutine of anything that can be awaited: a task takes nothing less."""
    return await awaitable


async def call(app: ASGI, scope: Scope, receive: Receive, send: Send) -> None:
    """Calls an application within its task."""
    await app(scope, receive, send)


async def call_twice(app: ASGI2, scope: Scope, receive: Receive, send: Send) -> None:
    """Calls an application of the older convention within its task."""
    await app(scope)(receive, send)


def ignore_signal(_number: int, _frame: FrameType | None) -> None:
    """Handles a signal by doing nothing."""
