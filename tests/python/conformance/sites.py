"""An application where it is served, and who talks to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from adapters.raw import Client
from conformance.clients import HTTP_1_0, HTTP_1_1, HTTP_2, Broken, connect

if TYPE_CHECKING:
    from conformance.clients import Answer, Connection, Exchange, Fields
    from twinspan.testing import Server

where_a_status_has_a_reason = pytest.mark.parametrize("protocol", [HTTP_1_0, HTTP_1_1])
where_a_body_need_not_tell_its_length = pytest.mark.parametrize("protocol", [HTTP_1_1, HTTP_2])
where_a_connection_can_be_half_closed = pytest.mark.parametrize("protocol", [HTTP_1_0, HTTP_1_1])
where_a_target_may_be_absolute = pytest.mark.parametrize("protocol", [HTTP_1_0, HTTP_1_1])
where_the_host_may_be_missing = pytest.mark.parametrize("protocol", [HTTP_1_0])
where_there_is_a_prefix = pytest.mark.parametrize("mount", ["/mounted"])
where_there_is_no_prefix = pytest.mark.parametrize("mount", [""])
where_the_next_request_follows_in_the_same_bytes = pytest.mark.parametrize("protocol", [HTTP_1_1])
where_there_are_interim_responses = pytest.mark.parametrize("protocol", [HTTP_1_1, HTTP_2])
where_there_are_none = pytest.mark.parametrize("protocol", [HTTP_1_0])
where_requests_may_be_sent_ahead = pytest.mark.parametrize("protocol", [HTTP_1_1])
where_continue_is_sent = pytest.mark.parametrize("protocol", [HTTP_1_1])
where_continue_cannot_be_sent = pytest.mark.parametrize("protocol", [HTTP_2])
where_hints_are_sent = pytest.mark.parametrize("protocol", [HTTP_1_1])
where_hints_cannot_be_sent = pytest.mark.parametrize("protocol", [HTTP_1_0, HTTP_2])
where_there_are_chunks = pytest.mark.parametrize("protocol", [HTTP_1_1])
where_the_end_of_the_connection_ends_a_body = pytest.mark.parametrize("protocol", [HTTP_1_0])
where_a_connection_has_many_streams = pytest.mark.parametrize("protocol", [HTTP_2])


class Site:
    """One application, served at `mount`, and clients that speak `protocol`."""

    def __init__(
        self, server: Server, protocol: str, mount: str, captured: pytest.CaptureFixture[str]
    ) -> None:
        self.server = server
        self.protocol = protocol
        self.mount = mount
        self._captured = captured
        self._log = ""
        self._connections: list[Connection] = []

    def connect(self, buffer: int | None = None) -> Connection:
        """A connection that ends with the test."""
        connection = connect(self.protocol, self.server.address, buffer=buffer)
        self._connections.append(connection)
        return connection

    def raw(self) -> Client:
        """A client that sends what no other does."""
        return Client(self.server.port)

    def start(
        self,
        method: str = "GET",
        path: str = "/",
        headers: Fields = (),
        *,
        length: int | None = None,
    ) -> Exchange:
        """Starts a request for a path below the mount, on a connection of its own."""
        return self.connect().start(method, self.mount + path, headers, length=length)

    def ask(
        self,
        method: str = "GET",
        path: str = "/",
        headers: Fields = (),
        body: bytes | None = None,
    ) -> Answer:
        """One request for a path below the mount, on a connection of its own."""
        return self.connect().ask(method, self.mount + path, headers, body)

    def breaks(self, method: str = "GET", path: str = "/") -> bool:
        """Whether the answer to a request breaks off; a reset may swallow its head too."""
        try:
            self.ask(method, path)
        except Broken:
            return True
        return False

    def log(self) -> str:
        """What the server has printed so far; all of it, once it is closed."""
        out, err = self._captured.readouterr()
        self._log += out + err
        return self._log

    def hang_up(self) -> None:
        """Ends the clients."""
        for connection in self._connections:
            connection.close()

    def close(self) -> None:
        """Ends the clients, then the server, which waits for the application."""
        self.hang_up()
        self.server.close()
