"""What an application may be: everything that `await app(scope, receive, send)` works with, and the
double callables of ASGI 2."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from typing import TYPE_CHECKING, Any

import pytest
from conformance.asgi.apps import Message, Receive, Scope, Send, read_all, respond
from conformance.clients import connect
from twinspan.testing import Server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Echoes, and says no to everything but HTTP."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    assert asyncio.current_task() is not None
    before = variable.get()
    variable.set("set")
    data = await read_all(receive)
    await respond(send, b" ".join([before.encode(), scope["root_path"].encode(), data]))


class Callable3:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(scope, receive, send)


class WithMethods:
    async def method(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(scope, receive, send)

    @classmethod
    async def of_the_class(cls, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(scope, receive, send)

    @staticmethod
    async def static(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(scope, receive, send)


class Endpoint:
    """The class is the application, as with Starlette's `HTTPEndpoint`: an instance is awaited."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert asyncio.current_task() is not None
        self._arguments = (scope, receive, send)

    def __await__(self) -> Generator[Any, None, None]:
        return answer(*self._arguments).__await__()


class SyncCall:
    """As middleware is often written: it hands on the awaitable of what it wraps."""

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return answer(scope, receive, send)


def returns_coroutine(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    return answer(scope, receive, send)


def returns_task(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    return asyncio.ensure_future(answer(scope, receive, send))


class Legacy:
    """ASGI 2: made for each connection, then called once."""

    def __init__(self, scope: Scope) -> None:
        assert asyncio.current_task() is not None
        self._scope = scope

    async def __call__(self, receive: Receive, send: Send) -> None:
        await answer(self._scope, receive, send)


def legacy(scope: Scope) -> Callable[[Receive, Send], Awaitable[None]]:
    async def instance(receive: Receive, send: Send) -> None:
        await answer(scope, receive, send)

    return instance


async def with_more(
    prefix: str, scope: Scope, receive: Receive, send: Send, *, option: bool = True
) -> None:
    assert (prefix, option) == ("given", False)
    await answer(scope, receive, send)


APPLICATIONS: dict[str, Any] = {
    "coroutine function": answer,
    "object": Callable3(),
    "method": WithMethods().method,
    "class method": WithMethods.of_the_class,
    "static method": WithMethods.static,
    "partial": functools.partial(with_more, "given", option=False),
    "class that is awaited": Endpoint,
    "function that returns a coroutine": returns_coroutine,
    "function that returns a task": returns_task,
    "object that returns a coroutine": SyncCall(),
    "class of ASGI 2": Legacy,
    "function of ASGI 2": legacy,
    "partial of ASGI 2": functools.partial(Legacy),
}


@pytest.fixture(scope="module")
def addresses() -> Any:
    """All of them on one server, each below a prefix of its own, and one at a root."""
    mounts = {f"/{number}": app for number, app in enumerate(APPLICATIONS.values())}
    with Server(APPLICATIONS["object"], mounts=mounts) as server:
        yield {name: (server.address, f"/{n}") for n, name in enumerate(APPLICATIONS)}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_is_anything_that_gives_an_awaitable(
    addresses: dict[str, tuple[str, str]], protocol: str, name: str
) -> None:
    """Seen, not declared; called within a task and a context of its own."""
    address, prefix = addresses[name]
    connection = connect(protocol, address)
    for data in (b"one", b"two"):
        body = connection.ask("POST", f"{prefix}/path", body=data).body
        assert body == b" ".join([b"unset", prefix.encode(), data])
    connection.close()


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_application_of_any_kind_may_be_alone(name: str) -> None:
    with Server(APPLICATIONS[name]) as server:
        connection = connect("HTTP/1.1", server.address)
        assert connection.ask("POST", "/", body=b"body").body == b"unset  body"
        connection.close()


@pytest.mark.parametrize("step", ["making", "calling"])
def test_an_error_in_either_call_of_asgi_2_is_a_500(
    step: str, protocol: str, capfd: pytest.CaptureFixture[str]
) -> None:
    class Faulty:
        def __init__(self, scope: Scope) -> None:
            self._scope = scope
            if step == "making":
                raise ValueError("while making")

        async def __call__(self, _receive: Receive, _send: Send) -> None:
            raise ValueError("while calling")

    with Server(Faulty, lifespan="off") as server:
        connection = connect(protocol, server.address)
        for _ in range(2):
            assert connection.ask().status == 500
        connection.close()
    assert capfd.readouterr().err.count(f"ValueError: while {step}") == 2


@pytest.mark.parametrize("result", [None, 5, "text", object()], ids=repr)
def test_a_call_that_gives_no_awaitable_is_a_500_that_says_so(
    result: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def app(scope: Scope, receive: Receive, send: Send) -> Any:
        return result

    with Server(app, lifespan="off") as server:
        connection = connect("HTTP/1.1", server.address)
        assert connection.ask().status == 500
        connection.close()
    log = capfd.readouterr().err
    assert "TypeError" in log
    assert "await" in log


def test_applications_of_asgi_2_take_part_in_the_lifespan(protocol: str) -> None:
    """Its specification has it as an example."""
    seen: list[str] = []

    class App:
        def __init__(self, scope: Scope) -> None:
            self._scope = scope

        async def __call__(self, receive: Receive, send: Send) -> None:
            if self._scope["type"] != "lifespan":
                await respond(send, self._scope["state"]["name"].encode())
                return
            self._scope["state"]["name"] = "of the lifespan"
            while not seen or seen[-1] != "lifespan.shutdown":
                message: Message = await receive()
                seen.append(message["type"])
                await send({"type": f"{message['type']}.complete"})

    with Server(App) as server:
        connection = connect(protocol, server.address)
        assert connection.ask().body == b"of the lifespan"
        connection.close()
    assert seen == ["lifespan.startup", "lifespan.shutdown"]
