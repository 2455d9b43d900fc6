"""`http.response.debug`, which only a server that logs for debugging offers.

The other extensions are tested on every protocol in `conformance/asgi/test_extensions.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from adapters.raw import Client

if TYPE_CHECKING:
    from support import StartCommand

APP = """
    DEBUG = "http.response.debug"


    class Loud:
        def __repr__(self):
            raise AssertionError("its repr is nobody's business")


    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise NotImplementedError

        async def refused(info):
            try:
                await send({"type": DEBUG, **info})
            except (RuntimeError, TypeError, ValueError) as error:
                return type(error).__name__
            return "sent"

        outcomes = [DEBUG in scope["extensions"]]
        if scope["path"] == "/wrong":
            outcomes += [
                await refused({}),
                await refused({"info": "text"}),
                await refused({"info": {5: 6}}),
            ]
        outcomes.append(
            await refused(
                {"info": {"template": "a\\nb" + "x" * 10_000, "status": 5, "context": Loud()}}
            )
        )
        outcomes.append(await refused({"info": {}}))
        await send({"type": "http.response.start", "status": 200})
        outcomes.append(await refused({"info": {}}))
        await send({"type": "http.response.body", "body": " ".join(map(str, outcomes)).encode()})
"""


@pytest.mark.parametrize("level", ["debug", "info"])
def test_debug_information_stands_in_the_log_and_nowhere_else(
    command: StartCommand, level: str
) -> None:
    server = command(
        "app:app", "--bind", "127.0.0.1:0", "--log-level", level, files={"app.py": APP}
    )
    with Client(server.port) as client:
        answer = client.ask()
        if level == "info":
            assert answer.body == b"False" + b" RuntimeError" * 3
            return
        assert answer.body == b"True sent RuntimeError RuntimeError"
        line = server.wait_for_line("an application says").string
        assert 'info="template=a\\nbxxx' in line
        assert 'xxx, status=5, context=Loud"' in line
        assert len(line) < 300
        wrong = client.ask(target="/wrong").body
        assert wrong == b"True ValueError TypeError TypeError sent RuntimeError RuntimeError"
