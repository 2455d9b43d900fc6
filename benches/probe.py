"""What a server answers, checked before it is measured: a fast wrong answer is no result."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catalogue import Answer, Workload

ANSWER_TIMEOUT = 30.0


class WrongAnswerError(Exception):
    """The server answered something else than every server must answer."""


class _CountingSocket(socket.socket):
    """Counts what is received: the length of a response on the wire, head and framing included."""

    received = 0

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        count = super().recv_into(*args, **kwargs)
        self.received += count
        return count


def response_sizes(workload: Workload, port: int) -> list[int]:
    """Asks every path of the workload over one connection; returns the bytes of each response.

    Raises `WrongAnswerError` when a status or a body differs from the workload's, or the connection
    is not kept open.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port)
    counting = _CountingSocket()
    counting.settimeout(ANSWER_TIMEOUT)
    try:
        counting.connect(("127.0.0.1", port))
        connection.sock = counting
        return [_ask(connection, counting, workload, answer) for answer in workload.answers]
    except (OSError, http.client.HTTPException) as error:
        raise WrongAnswerError(f"no answer: {error!r}") from error
    finally:
        connection.close()


def _ask(
    connection: http.client.HTTPConnection,
    counting: _CountingSocket,
    workload: Workload,
    answer: Answer,
) -> int:
    before = counting.received
    connection.request(workload.method, answer.path, body=b"x" * workload.body_bytes or None)
    response = connection.getresponse()
    body = response.read()
    asked = f"{workload.method} {answer.path}"
    if response.status != 200 or body != answer.body:
        raise WrongAnswerError(
            f"{asked}: expected 200 with {len(answer.body)} bytes {answer.body[:40]!r}, "
            f"got {response.status} with {len(body)} bytes {body[:40]!r}"
        )
    if response.will_close:
        raise WrongAnswerError(f"{asked}: the connection is not kept open")
    return counting.received - before
