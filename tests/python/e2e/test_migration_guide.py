"""The guide from Flask to FastAPI as it stands: its files and commands, and what these print."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from support import Command

ROOT = Path(__file__).parents[3]
GUIDE = ROOT / "docs" / "guides" / "flask-to-fastapi.md"
BLOCK = re.compile(r"^```(toml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LOOKS_LIMIT = 60
"""Seconds in which a command that only looks comes to print what the guide shows."""


class Visitors:
    """A constant load: strangers who look around, and customers who log in and order tea."""

    STRANGERS, CUSTOMERS = 3, 1

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked = 0
        self.lost: list[str] = []
        self.crashed = 0
        """Answered with 500."""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        visits = [self._look_around] * self.STRANGERS + [self._order] * self.CUSTOMERS
        self._threads = [
            threading.Thread(target=self._come, args=(visit, number))
            for number, visit in enumerate(visits)
        ]
        for thread in self._threads:
            thread.start()

    def leave(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _come(self, visit, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            turn += len(self._threads)
            # By this address the canary tells visitors apart.
            headers = {"x-forwarded-for": f"192.0.2.{turn % 100}"}
            try:
                with httpx.Client(
                    base_url=self.url, headers=headers, trust_env=False, timeout=20
                ) as client:
                    visit(client)
            except (httpx.HTTPError, AssertionError) as error:
                with self._lock:
                    self.lost.append(f"{type(error).__name__}: {error}")

    def _ask(self, client: httpx.Client, method: str, path: str, **values) -> httpx.Response:
        answer = client.request(method, path, **values)
        with self._lock:
            self.asked += 1
            self.crashed += answer.status_code == 500
        expected = [302] if method == "POST" else [200]
        if (method, path) == ("GET", "/orders"):
            # The planted mistake.
            expected.append(500)
        assert answer.status_code in expected, f"{method} {path}: {answer.status_code}"
        return answer

    def _look_around(self, client: httpx.Client) -> None:
        for path in ("/", "/products/1", "/static/shop.css", "/products/2", "/login"):
            self._ask(client, "GET", path)

    def _order(self, client: httpx.Client) -> None:
        def token(page: str) -> str:
            found = re.search(r'name="csrf" value="([^"]+)"', self._ask(client, "GET", page).text)
            assert found, page
            return found[1]

        form = {"csrf": token("/login"), "name": "grace", "password": "teapot"}
        self._ask(client, "POST", "/login", data=form)
        for _ in range(8):
            form = {"csrf": token("/products/3"), "product_id": "3", "quantity": "1"}
            self._ask(client, "POST", "/orders", data=form)
            self._ask(client, "GET", "/orders")
        self._ask(client, "POST", "/logout", data={"csrf": token("/products/3")})


def pattern(shown: str) -> re.Pattern[str]:
    """What the guide shows of an output: columns are apart, `…` is anything."""
    parts = [re.escape(" ".join(part.split())) for part in shown.split("…")]
    return re.compile(".*?".join(parts).replace(r"\ ", r"\s*"), re.DOTALL)


class Reader:
    """Somebody who does what the guide says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.server: Command | None = None
        self.visitors: Visitors | None = None

    def write(self, text: str) -> None:
        (self.directory / "twinspan.toml").write_text(text)

    def run(self, command: str, shown: str) -> None:
        expected = pattern(shown)
        if command == "twinspan &":
            self.server = Command(("--bind", "127.0.0.1:0", "--no-access-log"), cwd=self.directory)
            self.visitors = Visitors(self.server.url)
        elif command == "kill -HUP %1":
            assert self.server
            before = len(self.server.lines)
            os.kill(self.server.pid, signal.SIGHUP)
            self.server.wait_for_line(
                r"reload done: every worker has been replaced|no reload", 60, after=before
            )
            assert expected.search("\n".join(self.server.lines[before:])), self.server.text
        else:
            self._shell(command, expected)

    def _shell(self, command: str, expected: re.Pattern[str]) -> None:
        # What only looks is looked at until the load has brought it about.
        looks = re.match(r"twinspan (migrate|routes|check|ctl list)", command)
        deadline = time.monotonic() + (LOOKS_LIMIT if looks else 0)
        while True:
            ran = subprocess.run(
                ["/bin/sh", "-c", command],
                cwd=self.directory,
                env=self.environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            printed = ran.stdout + ran.stderr
            if expected.search(printed):
                return
            server = self.server.text if self.server else ""
            assert time.monotonic() < deadline, f"$ {command}\n{printed}\n{server}"


@pytest.mark.timeout(300)
def test_the_shop_moves_as_the_guide_says_and_loses_no_request(tmp_path: Path) -> None:
    directory = tmp_path / "rehearsal"
    shutil.copytree(
        ROOT / "examples" / "strangler",
        directory,
        ignore=shutil.ignore_patterns("instance", "*.toml"),
    )
    (directory / "instance").mkdir()
    (directory / "instance" / "mistakes").write_text("price")
    reader = Reader(directory)
    try:
        for kind, text in BLOCK.findall(GUIDE.read_text()):
            if kind == "toml":
                reader.write(text)
                continue
            commands = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
            for said in commands:
                command, _, shown = said.partition("\n")
                reader.run(command, shown)
        visitors = reader.visitors
        assert visitors
        visitors.leave()
        assert visitors.lost == []
        assert visitors.crashed > 0, "the planted mistake was never met"
        assert visitors.asked > 500
        with httpx.Client(base_url=reader.server.url, trust_env=False) as client:  # type: ignore[union-attr]
            assert 'answered by <b id="answered-by">FastAPI</b>' in client.get("/").text
    finally:
        if reader.visitors:
            reader.visitors.leave()
        if reader.server:
            reader.server.kill()
