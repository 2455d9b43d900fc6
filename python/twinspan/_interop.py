"""What the extension needs of Python's own syntax."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import asyncio
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


def whereabouts(task: asyncio.Task[object] | None, thread: int) -> str:
    """Where a task waits, or what keeps ``thread`` busy; ``None`` is one in its first step."""
    awaited: Any = task and task.get_coro()
    if task is None or getattr(awaited, "cr_running", False):
        frame = sys._current_frames().get(thread)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        return "it is busy (most recent call last):\n" + "".join(traceback.format_stack(frame))
    frames: list[FrameType] = []
    while awaited is not None:
        for kind in ("cr", "gi", "ag"):
            if frame := getattr(awaited, f"{kind}_frame", None):
                break
        else:
            break
        frames.append(frame)
        awaited = getattr(awaited, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    stack = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    return "it waits (most recent call last):\n" + "".join(stack.format())


def ignore_signal(_number: int, _frame: FrameType | None) -> None:
    """Handles a signal by doing nothing."""
