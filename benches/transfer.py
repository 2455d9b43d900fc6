"""The load of large bodies: a fixed number of transfers over a few connections.

wrk would have to hold the whole body as one string of Lua and reports only what it received, so
this client sends and receives by itself, in blocks, a thread per connection. Each transfer is
checked byte for byte: an upload by the count that the application answers, a download by its length
and content.
"""

from __future__ import annotations

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from statistics import quantiles
from typing import TYPE_CHECKING

from catalogue import TRANSFER_BYTES
from load import Load, LoadError

if TYPE_CHECKING:
    from catalogue import Transfer

# Large, so that the system calls of this side are not what limits the server.
BLOCK = bytes(2**20)
TIMEOUT = 60.0


def run(transfer: Transfer, port: int, connections: int, each: int) -> Load:
    """Runs `each` transfers on each of the connections.

    Raises `LoadError` when one fails, stops for `TIMEOUT`, or carries something else.
    """
    started, cpu = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(connections) as threads:
        runs = [threads.submit(_transfers, transfer, port, each) for _ in range(connections)]
    times = [seconds for run in runs for seconds in run.result()]
    percentiles = quantiles(times, n=100, method="inclusive")
    return Load(
        requests=len(times),
        received=len(times) * TRANSFER_BYTES if transfer.method == "GET" else 0,
        duration=time.monotonic() - started,
        p50=percentiles[49],
        p99=percentiles[98],
        errors={},
        cpu=time.process_time() - cpu,
    )


def _transfers(transfer: Transfer, port: int, count: int) -> list[float]:
    """Makes `count` transfers one after the other over one connection; returns their seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    times: list[float] = []
    try:
        for _ in range(count):
            started = time.monotonic()
            if transfer.method == "POST":
                _upload(connection, transfer.path)
            else:
                _download(connection, transfer.path)
            times.append(time.monotonic() - started)
    except (OSError, http.client.HTTPException) as error:
        raise LoadError(f"transfer {len(times) + 1} of a connection: {error!r}") from error
    finally:
        connection.close()
    return times


def _upload(connection: http.client.HTTPConnection, path: str) -> None:
    body = repeat(BLOCK, TRANSFER_BYTES // len(BLOCK))
    connection.request("POST", path, body, {"Content-Length": str(TRANSFER_BYTES)})
    response = connection.getresponse()
    answer = response.read()
    if response.status != 200 or answer != str(TRANSFER_BYTES).encode():
        raise LoadError(f"upload: expected 200 {TRANSFER_BYTES}, got {response.status} {answer!r}")


def _download(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    response = connection.getresponse()
    if response.status != 200:
        raise LoadError(f"download: expected 200, got {response.status}")
    buffer = memoryview(bytearray(len(BLOCK)))
    received = 0
    while count := response.readinto(buffer):
        if not BLOCK.startswith(buffer[:count]):
            raise LoadError(f"download: wrong content within {count} bytes after {received}")
        received += count
    if received != TRANSFER_BYTES:
        raise LoadError(f"download: expected {TRANSFER_BYTES} bytes, got {received}")
