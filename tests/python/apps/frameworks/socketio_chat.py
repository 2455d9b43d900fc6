"""Socket.IO: rooms, acknowledgements and what is not text, by python-socketio's ASGI server."""

from typing import Any

import socketio

server = socketio.AsyncServer(async_mode="asgi")


@server.event
async def connect(sid: str, environ: dict[str, Any], auth: dict[str, str] | None) -> None:
    if auth is None:
        raise socketio.exceptions.ConnectionRefusedError("who are you?")
    await server.save_session(sid, {"name": auth["name"]})


@server.event
async def enter(sid: str, room: str) -> str:
    await server.enter_room(sid, room)
    name = (await server.get_session(sid))["name"]
    await server.emit("entered", name, room=room, skip_sid=sid)
    return f"welcome to {room}, {name}"


@server.event
async def say(sid: str, room: str, message: object) -> int:
    await server.emit("said", message, room=room)
    return len(list(server.manager.get_participants("/", room)))


@server.event
async def transport(sid: str) -> str:
    return server.transport(sid)


@server.event
async def leave(sid: str) -> None:
    await server.disconnect(sid)


# `socketio_path=None` takes every path, as where something else has chosen the prefix.
app = socketio.ASGIApp(server, socketio_path=None)
