"""Lifespans of several applications in one server: none decides for another or fails in silence."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from e2e.wire import FOR_TESTS

if TYPE_CHECKING:
    import httpx
    from support import Command, StartCommand

APPLICATION = 3
APPS = "apps.lifecycles:"


def mounts(*names: str) -> list[str]:
    """Each is mounted under its name."""
    return [f"--mount=/{name}={APPS}{name}" for name in names]


def said(server: Command) -> list[str]:
    """What applications printed."""
    return [line for line in server.stdout if "HTTP/1.1" not in line]


def test_applications_start_in_order_and_stop_in_reverse_once_for_each_worker(
    command: StartCommand,
) -> None:
    file = f"""
        workers = 2
        routes = [{{ app = "one", mount = "/one" }}, {{ app = "three", mount = "/three" }},
                  {{ app = "two", mount = "/two" }}, {{ app = "wsgi" }}]
        apps.two = {{ app = "{APPS}two" }}
        apps.wsgi = {{ app = "{APPS}wsgi" }}
        apps.one = {{ app = "{APPS}one" }}
        apps.three = {{ app = "{APPS}three" }}
    """
    server = command(*FOR_TESTS, files={"twinspan.toml": file})
    assert server.terminate() == 0
    lines = said(server)
    assert len(lines) == 12
    order = ["two", "one", "three"]
    for name in order:
        assert lines.count(f"{name} starts") == 2
        assert lines.count(f"{name} stops with {{'name': '{name}'}}") == 2
    for happens, expected in (("starts", order), ("stops", order[::-1])):
        lines_of_it = [line for line in lines if happens in line]
        first = {line.split()[0]: at for at, line in reversed([*enumerate(lines_of_it)])}
        assert sorted(first, key=lambda name: first[name]) == expected, lines


def test_an_object_with_two_names_has_one_lifespan_and_one_state(
    command: StartCommand, http: httpx.Client
) -> None:
    server = command(*FOR_TESTS, *mounts("one", "two", "again"), "--no-access-log")
    for name in ("one", "again"):
        assert http.get(f"{server.url}/{name}").text == "{'name': 'one'}"
    assert server.terminate() == 0
    assert [line.split()[0] for line in said(server)] == ["one", "two", "two", "one"]


def test_state_belongs_to_one_application_is_copied_for_each_request_and_lives_to_the_shutdown(
    command: StartCommand, http: httpx.Client
) -> None:
    server = command(*FOR_TESTS, *mounts("shared", "other"))
    texts = [http.get(f"{server.url}/shared").text for _ in range(3)]
    # A shallow copy: what is in it is shared.
    assert texts == [f"{{'list': {[1] * count}, 'name': 'shared'}}" for count in range(3)]
    assert http.get(f"{server.url}/other").text == "{'list': [], 'name': 'other'}"
    assert server.terminate() == 0
    assert "shared stops with {'list': [1, 1, 1], 'name': 'shared'}" in server.stdout
    assert "other stops with {'list': [1], 'name': 'other'}" in server.stdout


REFUSALS = ["not_implemented", "of_its_name", "asserting", "by_path", "heedless", "absent"]


def test_applications_without_a_lifespan_start_in_silence_beside_one_that_has_one(
    command: StartCommand, http: httpx.Client
) -> None:
    server = command(*FOR_TESTS, *mounts(*REFUSALS, "one", "wsgi"))
    for name in REFUSALS:
        assert http.get(f"{server.url}/{name}").text.startswith("serves")
    assert http.get(f"{server.url}/one").text == "{'name': 'one'}"
    assert http.get(f"{server.url}/wsgi").text == "wsgi serves"
    assert server.terminate() == 0
    assert "Traceback" not in server.text
    assert "WARN" not in server.text


def test_what_looks_like_a_bug_before_the_startup_is_no_silent_refusal(
    command: StartCommand, http: httpx.Client
) -> None:
    server = command(*FOR_TESTS, *mounts("buggy"))
    assert http.get(f"{server.url}/buggy").text == "serves"
    server.wait_for_line(r"WARN .*its lifespan began.*`--lifespan on` makes")
    server.wait_for_line("ConnectionRefusedError: the database is not there")
    assert server.terminate() == 0


@pytest.mark.parametrize("policy", ["on", "required"])
@pytest.mark.parametrize("name", [*REFUSALS, "buggy"])
def test_who_must_take_part_and_does_not_ends_the_start(
    command: StartCommand, name: str, policy: str
) -> None:
    refused = command(APPS + name, *FOR_TESTS, f"--lifespan={policy}", ready=False)
    assert refused.wait() == APPLICATION
    refused.wait_for_line(rf"^error: application `{APPS}{name}`: it takes no part in the lifespan")
    refused.wait_for_line("^hint: `--lifespan auto` goes on without")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("raises_in_startup", "startup raised ConnectionRefusedError: the database is not there"),
        ("exits_in_startup", "startup raised SystemExit: 0"),
        ("returns_in_startup", r"startup returned without `lifespan\.startup\.complete`"),
        ("fails_with_a_traceback", "startup failed: OSError: the database is not there"),
    ],
)
def test_a_startup_that_fails_ends_the_start_and_stops_those_before_it(
    command: StartCommand, name: str, problem: str
) -> None:
    refused = command(*FOR_TESTS, *mounts("one", name, "two"), ready=False)
    assert refused.wait() == APPLICATION
    refused.wait_for_line(rf"^error: application `{APPS}{name}`: its lifespan {problem}")
    assert ("Traceback (most recent call last):" in refused.text) == ("returned" not in problem)
    assert said(refused) == ["one starts", "one stops with {'name': 'one'}"]
    assert "listening on" not in refused.text


@pytest.mark.parametrize(
    ("name", "where", "line"),
    [
        ("waits_in_startup", "it waits", "await asyncio.sleep"),
        ("blocks_in_startup", "it is busy", "time.sleep"),
    ],
)
def test_a_startup_that_hangs_is_named_with_the_time_it_had_and_where_it_is(
    command: StartCommand, name: str, where: str, line: str
) -> None:
    file = f"""
        routes = [{{ app = "slow", mount = "/slow" }}, {{ app = "one" }}]
        apps.one = {{ app = "{APPS}one", lifespan = "off" }}
        apps.slow = {{ app = "{APPS}{name}", timeout_startup = 0.3 }}
    """
    refused = command(*FOR_TESTS, files={"twinspan.toml": file}, ready=False)
    assert refused.wait() == APPLICATION
    refused.wait_for_line(rf"^error: application `{APPS}{name}`: it did not start within 300ms")
    refused.wait_for_line(r"^hint: raise `--timeout-startup`.*`\[apps\.slow\]`.*`--lifespan off`")
    refused.wait_for_line(where)
    refused.wait_for_line(line)


def test_an_application_whose_lifespan_is_off_is_never_asked(
    command: StartCommand, http: httpx.Client
) -> None:
    server = command(APPS + "heedless", *FOR_TESTS, *mounts("breaks"), "--lifespan=off")
    assert http.get(server.url).text == "serves"
    assert server.terminate() == 0
    assert said(server) == []


@pytest.mark.parametrize("name", ["hangs", "fails", "raises"])
def test_a_shutdown_that_goes_wrong_keeps_no_other_from_its_own_and_shows_in_the_exit_code(
    command: StartCommand, name: str
) -> None:
    server = command(*FOR_TESTS, *mounts("one", name, "two"), "--timeout-shutdown=0.3")
    assert server.terminate() == APPLICATION
    assert said(server)[3:] == [
        "two stops with {'name': 'two'}",
        f"{name} is asked to stop",
        "one stops with {'name': 'one'}",
    ]
    problem = {
        "hangs": "it did not stop within 300ms",
        "fails": "its lifespan shutdown failed: the pool is not empty",
        "raises": "its lifespan shutdown raised ValueError: the pool is not empty",
    }
    server.wait_for_line(rf"ERROR the shutdown failed: {problem[name]}.*")
    server.wait_for_line(rf"app={APPS}{name}")


def test_a_shutdown_without_a_word_is_a_clean_one(command: StartCommand) -> None:
    server = command(*FOR_TESTS, *mounts("returns"))
    assert server.terminate() == 0
    assert "ERROR" not in server.text


@pytest.mark.parametrize("name", ["breaks", "says_that_it_breaks"])
def test_a_lifespan_that_breaks_while_its_application_serves_is_shown_and_ends_nothing(
    command: StartCommand, http: httpx.Client, name: str
) -> None:
    server = command(APPS + name, *FOR_TESTS)
    assert http.get(f"{server.url}/break").text == "{'name': 'breaks'}"
    server.wait_for_line("ERROR the lifespan ended while the application serves")
    server.wait_for_line("^ValueError: the consumer died")
    assert http.get(server.url).text == "{'name': 'breaks'}"
    assert server.terminate() == APPLICATION
    assert server.text.count("ValueError: the consumer died") == 1


def test_a_worker_is_replaced_when_a_lifespan_breaks_that_is_required(
    command: StartCommand, http: httpx.Client
) -> None:
    server = command(APPS + "breaks", *FOR_TESTS, "--lifespan=required")
    assert http.get(f"{server.url}/break").text == "{'name': 'breaks'}"
    server.wait_for_line("its lifespan is required and has broken: .*another takes its place")
    server.wait_for_line("a worker is ready|ready", after=len(server.lines))
    assert http.get(server.url).text == "{'name': 'breaks'}"
    assert said(server).count("breaks starts") == 2


def test_a_worker_that_is_told_itself_to_stop_ends_its_lifespans(
    command: StartCommand, http: httpx.Client
) -> None:
    server = command(*FOR_TESTS, *mounts("one", "two"))
    assert http.get(f"{server.url}/one").status_code == 200
    server.send_signal(signal.SIGINT)
    assert server.wait() == 0
    assert said(server)[2:] == ["two stops with {'name': 'two'}", "one stops with {'name': 'one'}"]
