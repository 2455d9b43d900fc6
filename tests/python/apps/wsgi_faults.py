"""A WSGI application that does one wrong thing for each path; `/ok` is right."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

TEXT = [("content-type", "text/plain")]


def application(environ: dict[str, Any], start_response: Any) -> Iterable[Any]:
    return FAULTS[environ["PATH_INFO"]](start_response)


def ok(start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    return [b"fine"]


def raise_before_start(_: Any) -> Iterable[bytes]:
    raise RuntimeError("raised before the start")


def raise_in_first_step(start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", TEXT)
    raise RuntimeError("raised before the first block")
    yield b"never"


def raise_after_start(start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", TEXT)
    yield b"first"
    raise RuntimeError("raised after the start")


def raise_after_start_with_length(start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [*TEXT, ("content-length", "100")])
    yield b"first"
    raise RuntimeError("raised after the start")


def too_short(start_response: Any) -> Iterator[bytes]:
    start_response("200 OK", [*TEXT, ("content-length", "100")])
    yield b"first"


def too_short_at_once(start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [*TEXT, ("content-length", "100")])
    return [b"first and last"]


def exit_process(_: Any) -> Iterable[bytes]:
    sys.exit(7)


def status_out_of_range(start_response: Any) -> Iterable[bytes]:
    start_response("1000 Too Much", TEXT)
    return [b"body"]


def status_without_number(start_response: Any) -> Iterable[bytes]:
    start_response("fine", TEXT)
    return [b"body"]


def status_not_text(start_response: Any) -> Iterable[bytes]:
    start_response(200, TEXT)
    return [b"body"]


def header_with_newline(start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("x-note", "one\r\nx-other: two")])
    return [b"body"]


def header_name_with_space(start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("x note", "one")])
    return [b"body"]


def header_not_text(start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("x-note", 5)])
    return [b"body"]


def hop_by_hop_header(start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("connection", "close")])
    return [b"body"]


def length_not_a_number(start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("content-length", "many")])
    return [b"body"]


def body_without_start(_: Any) -> Iterable[bytes]:
    return [b"body"]


def nothing_at_all(_: Any) -> Any:
    return None


def start_twice(start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", TEXT)
    start_response("201 Created", TEXT)
    return [b"body"]


def body_not_bytes(start_response: Any) -> Iterable[Any]:
    start_response("200 OK", TEXT)
    return ["text"]


FAULTS: dict[str, Callable[[Any], Any]] = {
    "/" + fault.__name__.replace("_", "-"): fault
    for fault in (
        ok,
        raise_before_start,
        raise_in_first_step,
        raise_after_start,
        raise_after_start_with_length,
        too_short,
        too_short_at_once,
        exit_process,
        status_out_of_range,
        status_without_number,
        status_not_text,
        header_with_newline,
        header_name_with_space,
        header_not_text,
        hop_by_hop_header,
        length_not_a_number,
        body_without_start,
        nothing_at_all,
        start_twice,
        body_not_bytes,
    )
}
