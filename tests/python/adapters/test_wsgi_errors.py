"""`wsgi.errors`: what an application writes there stands in the server's log, under its name."""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

import pytest
from adapters.raw import Client

if TYPE_CHECKING:
    from support import Command, StartCommand

APP = """
    import logging, sys, threading, traceback

    kept = []

    def serve(path, errors):
        if path == "/print":
            print("printed", "in", "pieces", file=errors)
        elif path == "/methods":
            assert errors.write("w\\xe9\\n") == 3
            errors.writelines(iter(["first of ", "two\\n", "second of two\\n"]))
        elif path == "/flushed":
            errors.write("flushed without end")
            errors.flush()
            kept.append("flushed")
        elif path == "/unfinished":
            errors.write("unfinished")
        elif path == "/logging":
            if not kept:
                logging.getLogger("of-app").addHandler(logging.StreamHandler(errors))
                kept.append(errors)
            logging.getLogger("of-app").error("handled %s", len(kept))
        elif path == "/traceback":
            try:
                raise ValueError("traced")
            except ValueError:
                traceback.print_exc(file=errors)
        elif path == "/odd":
            errors.write("odd \\x1b[31m \\u2028 \\udc80 \\rERROR forged \\0 \\U0001f600\\n")
        elif path == "/long":
            errors.write("l" * 100_000 + "\\n")
        elif path == "/threads":
            def write(name):
                for _ in range(200):
                    for piece in (name, name, name, "\\n"):
                        errors.write(piece)
            threads = [threading.Thread(target=write, args=(f"<{n}>",)) for n in range(8)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
        elif path == "/type":
            for wrong in (b"bytes", 5, None):
                try:
                    errors.write(wrong)
                except TypeError:
                    kept.append(wrong)
            return f"{len(kept)} {errors.encoding} {errors.isatty()} {hasattr(errors, 'fileno')}"
        return "served"

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/read":
            environ["wsgi.input"].read()
        text = serve(environ["PATH_INFO"], environ["wsgi.errors"])
        start_response("200 OK", [])
        return [text.encode()]
    """


@pytest.fixture
def server(command: StartCommand) -> Command:
    # One thread: what a request logs stands before what the next one logs.
    return command("app:app", "--bind=127.0.0.1:0", "--threads=1", files={"app.py": APP})


def ask(server: Command, path: str) -> str:
    with Client(server.port) as client:
        answer = client.ask(target=path)
    assert answer.status == 200, server.text
    return answer.body.decode()


def logged(server: Command, last: str) -> list[str]:
    """What stands in the log under the application's name, up to a line of its own."""
    server.wait_for_line(last)
    lines = [re.search(r"ERROR (.*) app=app$", line) for line in server.text.splitlines()]
    return [found[1] for found in lines if found]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/print", ["printed in pieces"]),
        ("/methods", ["w\xe9", "first of two", "second of two"]),
        ("/flushed", ["flushed without end"]),
        ("/unfinished", ["unfinished"]),
        ("/odd", ["odd \\x1b[31m \\u2028 \\udc80 \\rERROR forged \\x00 \U0001f600"]),
    ],
)
def test_each_line_is_one_of_the_log_with_the_name_of_the_application(
    server: Command, path: str, expected: list[str]
) -> None:
    ask(server, path)
    assert logged(server, re.escape(expected[-1])) == expected


def test_a_handler_of_logging_goes_on_working_after_its_request(server: Command) -> None:
    ask(server, "/logging")
    ask(server, "/logging")
    ask(server, "/print")
    assert logged(server, "printed") == ["handled 1", "handled 1", "printed in pieces"]


def test_a_traceback_stands_there_line_by_line(server: Command) -> None:
    ask(server, "/traceback")
    lines = logged(server, "ValueError: traced")
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: traced"


def test_a_long_line_is_cut_into_lines_that_can_be_read(server: Command) -> None:
    ask(server, "/long")
    ask(server, "/print")
    *parts, _ = logged(server, "printed")
    assert "".join(parts) == "l" * 100_000
    assert max(map(len, parts)) == 8192


def test_lines_of_threads_stay_whole(server: Command) -> None:
    ask(server, "/threads")
    ask(server, "/print")
    *lines, _ = logged(server, "printed")
    assert sorted(lines) == sorted([f"<{n}>" * 3 for n in range(8)] * 200)


def test_only_text_can_be_written(server: Command) -> None:
    assert ask(server, "/type") == "3 utf-8 False False"


def test_a_client_that_stops_sending_is_no_error_of_the_application(server: Command) -> None:
    with Client(server.port) as client:
        client.start("POST", "/read", 10)
        client.send(b"half")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.answer().status == 400
        assert client.ends()
    server.wait_for_line('"POST /read HTTP/1.1" 400 ')
    ask(server, "/print")
    assert logged(server, "printed") == ["printed in pieces"]
    assert "Traceback" not in server.text
