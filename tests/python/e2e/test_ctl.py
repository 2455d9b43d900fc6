"""`twinspan ctl` and the admin endpoint: rules are changed while the server runs."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import threading
from typing import TYPE_CHECKING

import httpx
import pytest
from e2e.wire import FOR_TESTS
from support import Command, write_files
from twinspan.testing import Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import StartCommand

CONFIGURATION = """
    state_dir = "state"

    [apps.new]
    app = "apps.sides:new"

    [apps.old]
    app = "apps.sides:old"

    [[routes]]
    name = "items"
    app = "new"
    path = "/items"
    canary = { percent = 0, sticky = "header:x-user" }
    shadow = 0

    [[routes]]
    name = "faulty"
    app = "new"
    path = "/faulty"
    canary = { percent = 50, sticky = "header:x-user", min_samples = 20 }

    [[routes]]
    app = "old"
"""
USERS = 20


def admin_of(server: Command) -> str:
    """The address of the admin endpoint: `127.0.0.1:40123`."""
    line = server.wait_for_line(r"admin endpoint at http://(?P<address>\S+?)/?$")
    return line.group("address")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    directory = tmp_path_factory.mktemp("ctl")
    write_files(directory, {"twinspan.toml": CONFIGURATION})
    command = Command((*FOR_TESTS, "--admin", "127.0.0.1:0", "--workers", "2"), cwd=directory)
    try:
        assert command.url
        yield command
    finally:
        command.kill()


@pytest.fixture
def admin(server: Command) -> Iterator[httpx.Client]:
    """The admin endpoint; the rule `items` is as it was written before and after."""
    token = (server.cwd / "state" / "admin-token").read_text().strip()
    with httpx.Client(
        base_url=f"http://{admin_of(server)}",
        headers={"authorization": f"Bearer {token}"},
        trust_env=False,
        timeout=20,
    ) as client:
        yield client
        change(client, {"rule": "items", "edit": "reset"})


def change(admin: httpx.Client, edit: dict[str, object], **parameters: str) -> dict[str, object]:
    answer = admin.post("/migrate/change", json=edit, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def answers(server: Command, path: str = "/items", users: int = USERS) -> set[str]:
    """Who answers so many users, each on a connection of their own."""
    fresh = httpx.Limits(max_keepalive_connections=0)
    texts: set[str] = set()
    with httpx.Client(trust_env=False, timeout=20, limits=fresh) as client:
        for user in range(users):
            answer = client.get(server.url + path, headers={"x-user": str(user)})
            texts.add(answer.text)
    return texts


class Ctl:
    """`twinspan ctl` beside one server."""

    def __init__(self, start: StartCommand, server: Command) -> None:
        self._start = start
        self._server = server

    def __call__(self, *arguments: str, code: int = 0) -> str:
        address = ("--admin", admin_of(self._server))
        command = self._start("ctl", *arguments, *address, cwd=self._server.cwd, ready=False)
        assert command.wait() == code, command.text
        return command.text


@pytest.fixture
def ctl(command: StartCommand, server: Command) -> Ctl:
    return Ctl(command, server)


def test_a_change_counts_for_the_next_request_on_every_worker(
    ctl: Ctl, server: Command, admin: httpx.Client
) -> None:
    assert answers(server) == {"old"}
    said = ctl("set", "items", "canary=100", "--dry-run")
    assert said == ("rule `items` would be: canary 0 % -> 100 %, on 2 workers; nothing was changed")
    assert answers(server) == {"old"}
    said = ctl("set", "items", "canary=100")
    assert re.fullmatch(r"rule `items`: canary 0 % -> 100 %; version \d+, on 2 workers", said), said
    assert answers(server) == {"new"}
    change(admin, {"rule": "items", "edit": "set", "canary": 50})
    assert answers(server) == {"old", "new"}


def test_a_rollback_stays_until_it_is_reset(ctl: Ctl, server: Command, admin: httpx.Client) -> None:
    change(admin, {"rule": "items", "edit": "set", "canary": 100})
    said = ctl("rollback", "items", "--reason", "the cart is empty")
    assert "canary 100 % -> 0 %, rolled back (the cart is empty)" in said
    assert answers(server) == {"old"}
    refused = ctl("set", "items", "canary=10", code=1)
    assert refused == ("error: rule `items` was rolled back (the cart is empty): reset it first")
    assert "rolled back from 100 %: the cart is empty" in ctl("list")
    assert "no longer rolled back" in ctl("reset", "items")
    metrics = admin.get("/metrics").text
    assert 'twinspan_rollbacks_total{rule="items"} 1' in metrics
    assert 'twinspan_canary_percent{rule="items"} 0.00' in metrics


def test_rules_are_listed_with_what_the_file_says(ctl: Ctl, admin: httpx.Client) -> None:
    change(admin, {"rule": "items", "edit": "set", "canary": 2.5, "shadow": 100})
    lines = ctl("list").splitlines()
    assert lines[0].split() == ["RULE", "APP", "CANARY", "SHADOW", "MATCHES"]
    assert re.fullmatch(
        r"items +new +2\.5 % +100 % +path /items +"
        r"twinspan\.toml:\d+ says canary 0 %, shadow 0 %",
        lines[1],
    ), lines[1]
    rules = json.loads(ctl("list", "--json"))
    assert [rule["name"] for rule in rules["rules"]] == ["items", "faulty", "catch-all"]
    assert rules["rules"][0]["canary"] == 2.5
    assert rules == admin.get("/migrate/rules").json()


def test_what_cannot_be_done_is_said_with_the_way_out(ctl: Ctl, server: Command) -> None:
    said = ctl("set", "itmes", "canary=10", code=1)
    assert said == "error: there is no rule `itmes`; did you mean `items`?"
    said = ctl("set", "catch-all", "canary=10", code=1)
    assert said == (
        "error: rule `catch-all` has no canary: add `canary = 0` to it in the configuration"
    )
    other = server.cwd / "other"
    other.mkdir(mode=0o700)
    (other / "admin-token").write_text("0" * 64)
    said = ctl("reset", "items", "--state-dir", "other", code=1)
    assert said == (
        "error: this is not the token in `admin-token` of the state directory\n"
        "hint: is `state_dir` that of the server? Several servers have several tokens"
    )


def test_a_change_needs_the_token(server: Command, admin: httpx.Client) -> None:
    edit = {"rule": "items", "edit": "set", "canary": 100}
    for authorization, status in [(None, 401), ("Bearer " + "0" * 64, 403), ("Basic eDp5", 403)]:
        headers = {} if authorization is None else {"authorization": authorization}
        answer = httpx.post(
            f"{admin.base_url}/migrate/change", json=edit, headers=headers, trust_env=False
        )
        assert answer.status_code == status, answer.text
        assert "admin-token" in answer.json()["error"]
        assert ("www-authenticate" in answer.headers) == (status == 401)
    assert answers(server) == {"old"}


def test_what_is_kept_is_for_nobody_else(server: Command, admin: httpx.Client) -> None:
    change(admin, {"rule": "items", "edit": "set", "canary": 1})
    state = server.cwd / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for name in ["admin-token", "overlay.json", "audit.jsonl"]:
        assert stat.S_IMODE((state / name).stat().st_mode) == 0o600, name


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example"},
        {"host": "rebound.example", "x-forwarded-host": "localhost"},
        {"host": "rebound.example", "forwarded": "host=localhost"},
    ],
)
def test_only_names_of_this_machine_reach_the_rules(
    admin: httpx.Client, headers: dict[str, str]
) -> None:
    edit = {"rule": "items", "edit": "set", "canary": 100}
    assert admin.get("/migrate/rules", headers=headers).status_code == 403
    assert admin.post("/migrate/change", json=edit, headers=headers).status_code == 403
    assert admin.get("/migrate/rules", headers={"host": "localhost"}).status_code == 200
    # Prometheus may scrape under whatever name it likes.
    assert admin.get("/metrics", headers=headers).status_code == 200
    assert admin.get("/healthz", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ('{"rule": "items",\n"edit": "set", "canary": "x"}', 400, "this is no change: "),
        ('{"rule": "items",\n"edit": }', 400, "line 2 column 9"),
        ('{"rule": "items", "edit": "set"}', 400, "nothing is said about rule `items`"),
        ('{"rule": "items", "edit": "set", "shdow": 1}', 400, "did you mean `shadow`?"),
        ('{"rule": "none", "edit": "reset"}', 404, "there is no rule `none`"),
        (" " * 70_000, 413, "at most 65536 bytes"),
    ],
)
def test_a_wrong_change_is_refused_with_the_place(
    admin: httpx.Client, body: str, status: int, error: str
) -> None:
    answer = admin.post("/migrate/change", content=body)
    assert (answer.status_code, error in answer.json()["error"]) == (status, True), answer.text


def test_answers_are_not_stored_and_cannot_be_made_a_page(admin: httpx.Client) -> None:
    for path in ["/migrate", "/migrate/chart", "/migrate/rules", "/migrate/differences"]:
        answer = admin.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'"
    assert admin.get("/migrate/differences?rule=items").json() == {"samples": []}
    assert {rule["name"] for rule in admin.get("/migrate").json()["rules"]} >= {"items", "faulty"}
    refused = admin.put("/migrate/change")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert admin.get("/migrate/nothing").status_code == 404


def test_changes_lose_no_request(server: Command, admin: httpx.Client) -> None:
    over = threading.Event()
    seen: list[set[str]] = []

    def load(user: int) -> None:
        texts: set[str] = set()
        with httpx.Client(trust_env=False, timeout=20, headers={"x-user": str(user)}) as client:
            while not over.is_set():
                answer = client.get(f"{server.url}/items")
                texts.add(f"{answer.status_code} {answer.text}")
        seen.append(texts)

    threads = [threading.Thread(target=load, args=(user,)) for user in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            canary = 100 if number % 2 else 0
            made = change(admin, {"rule": "items", "edit": "set", "canary": canary})
            assert made["workers"] == 2
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert len(seen) == len(threads), "a client has failed"
    assert set[str]().union(*seen) <= {"200 old", "200 new"}, seen


def test_a_canary_that_fails_is_taken_back_by_the_server(
    server: Command, admin: httpx.Client
) -> None:
    assert answers(server, "/faulty", users=120) == {"old", "new"}
    line = server.wait_for_line(
        r"a canary was rolled back.*faulty|faulty.*a canary was rolled back"
    )
    assert "faulty" in line.string
    assert answers(server, "/faulty") == {"old"}
    assert 'twinspan_canary_percent{rule="faulty"} 0.00' in admin.get("/metrics").text
    # It counts before it is on the disk; this is answered when it is there.
    assert admin.get("/migrate").status_code == 200
    audit = [
        json.loads(line) for line in (server.cwd / "state" / "audit.jsonl").read_text().splitlines()
    ]
    (record,) = [record for record in audit if record["rule"] == "faulty"]
    assert record["who"] == "automatic"
    assert record["was"] == {"canary": 50.0}
    assert record["is"]["canary"] == 0.0
    assert record["reason"]


def test_a_restart_keeps_what_was_changed(command: StartCommand, tmp_path: Path) -> None:
    arguments = (*FOR_TESTS, "--admin", "unix:admin.sock")
    server = command(*arguments, files={"twinspan.toml": CONFIGURATION})
    ctl = command("ctl", "set", "items", "canary=100", "--admin", "unix:admin.sock", ready=False)
    assert ctl.wait() == 0, ctl.text
    assert answers(server, users=3) == {"new"}
    token = (tmp_path / "state" / "admin-token").read_text()
    assert server.terminate() == 0
    nobody = command("ctl", "list", "--admin", "unix:admin.sock", ready=False)
    assert nobody.wait() == 1
    assert "error: nobody answers at unix:admin.sock" in nobody.text

    server = command(*arguments)
    server.wait_for_line(r"rule `items`: canary 100 %, changed live; twinspan.toml:\d+ says 0 %")
    assert answers(server, users=3) == {"new"}
    assert (tmp_path / "state" / "admin-token").read_text() == token
    # Whoever writes another share into the file learns that it does not count.
    file = tmp_path / "twinspan.toml"
    file.write_text(file.read_text().replace("percent = 0,", "percent = 5,"))
    server.send_signal(signal.SIGHUP)
    server.wait_for_line(r"rule `items`: canary 100 %, changed live; twinspan.toml:\d+ says 5 %")
    assert answers(server, users=3) == {"new"}
    second = command(*FOR_TESTS, ready=False)
    assert second.wait() == 2
    assert "another server uses" in second.text
    assert server.terminate() == 0
    (line,) = (tmp_path / "state" / "audit.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert (record["version"], record["who"], record["uid"]) == (1, "operator", os.getuid())
    assert (record["was"]["canary"], record["is"]["canary"]) == (0.0, 100.0)

    (tmp_path / "state" / "overlay.json").write_text("{")
    broken = command(*FOR_TESTS, ready=False)
    assert broken.wait() == 2
    assert "overlay.json` does not hold what was changed live" in broken.text
    assert "hint: mend the file, or move it away" in broken.text


def test_without_a_state_directory_nothing_can_be_changed(command: StartCommand) -> None:
    without = CONFIGURATION.replace('state_dir = "state"', "")
    server = command(*FOR_TESTS, "--admin", "127.0.0.1:0", files={"twinspan.toml": without})
    edit = {"rule": "items", "edit": "set", "canary": 100}
    answer = httpx.post(f"http://{admin_of(server)}/migrate/change", json=edit, trust_env=False)
    assert answer.status_code == 403
    assert "--state-dir DIRECTORY" in answer.json()["error"]
    said = command("ctl", "reset", "items", "--admin", admin_of(server), ready=False)
    assert said.wait() == 2
    assert "names no state directory" in said.text


def test_a_server_in_a_program_steers_nothing() -> None:
    with pytest.raises(ValueError, match="nothing is kept in `state` here"):
        Server("apps.sides:old", state_dir="state")
