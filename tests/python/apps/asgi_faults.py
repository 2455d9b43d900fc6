"""An ASGI application that does one wrong thing for each path; `/ok` is right."""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

TEXT = [(b"content-type", b"text/plain")]


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError(scope["type"])
    # Below a mount `path` is the whole path, and `root_path` the part in front (ASGI, "HTTP").
    await FAULTS[scope["path"].removeprefix(scope["root_path"])](send)


async def start(send: Any, status: Any = 200, headers: Any = TEXT) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def body(send: Any, content: Any = b"body", more: bool = False) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": more})


async def ok(send: Any) -> None:
    await start(send)
    await body(send, b"fine")


async def raise_before_start(_: Any) -> None:
    raise RuntimeError("raised before the start")


async def raise_after_start(send: Any) -> None:
    await start(send)
    await body(send, b"first", more=True)
    raise RuntimeError("raised after the start")


async def raise_after_start_with_length(send: Any) -> None:
    await start(send, headers=[*TEXT, (b"content-length", b"100")])
    await body(send, b"first", more=True)
    raise RuntimeError("raised after the start")


async def too_short(send: Any) -> None:
    await start(send, headers=[*TEXT, (b"content-length", b"100")])
    await body(send, b"first", more=True)
    await body(send, b"last")


async def too_short_at_once(send: Any) -> None:
    await start(send, headers=[*TEXT, (b"content-length", b"100")])
    await body(send, b"first and last")


async def return_without_end(send: Any) -> None:
    await start(send)
    await body(send, b"first", more=True)


async def exit_process(_: Any) -> None:
    sys.exit(7)


async def no_answer(_: Any) -> None:
    pass


async def status_out_of_range(send: Any) -> None:
    await start(send, 1000)
    await body(send)


async def status_not_a_number(send: Any) -> None:
    await start(send, "fine")
    await body(send)


async def status_missing(send: Any) -> None:
    await send({"type": "http.response.start", "headers": TEXT})
    await body(send)


async def header_with_newline(send: Any) -> None:
    await start(send, headers=[(b"x-note", b"one\r\nx-other: two")])
    await body(send)


async def header_name_with_space(send: Any) -> None:
    await start(send, headers=[(b"x note", b"one")])
    await body(send)


async def header_not_bytes(send: Any) -> None:
    await start(send, headers=[("x-note", 5)])
    await body(send)


async def length_not_a_number(send: Any) -> None:
    await start(send, headers=[(b"content-length", b"many")])
    await body(send)


async def body_before_start(send: Any) -> None:
    await body(send)


async def start_twice(send: Any) -> None:
    await start(send)
    await start(send)
    await body(send)


async def unknown_message(send: Any) -> None:
    await send({"type": "http.response.begin"})


async def message_without_type(send: Any) -> None:
    await send({"status": 200})


async def message_not_a_dict(send: Any) -> None:
    await send("http.response.start")


async def websocket_message(send: Any) -> None:
    await send({"type": "websocket.accept"})


FAULTS: dict[str, Callable[[Any], Awaitable[None]]] = {
    "/" + fault.__name__.replace("_", "-"): fault
    for fault in (
        ok,
        raise_before_start,
        raise_after_start,
        raise_after_start_with_length,
        too_short,
        too_short_at_once,
        return_without_end,
        exit_process,
        no_answer,
        status_out_of_range,
        status_not_a_number,
        status_missing,
        header_with_newline,
        header_name_with_space,
        header_not_bytes,
        length_not_a_number,
        body_before_start,
        start_twice,
        unknown_message,
        message_without_type,
        message_not_a_dict,
        websocket_message,
    )
}
