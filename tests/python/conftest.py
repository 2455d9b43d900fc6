"""Fixtures for every test: a server in this process, the command in its own, a browser, curl."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright
from support import TWINSPAN, Command, tool, write_files
from twinspan.testing import Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from playwright.sync_api import Browser, Page
    from support import Serve, StartCommand
    from twinspan._serve import Target

CHROMIUM_ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    # A page that asks for anything but the server under test gets an error, not the internet.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers in this process, each on a port of its own."""
    with ExitStack() as servers:

        def start(
            *apps: Target, mounts: Mapping[str, Target] | None = None, **options: object
        ) -> Server:
            return servers.enter_context(Server(*apps, mounts=mounts, **options))

        yield start


@pytest.fixture
def command(tmp_path: Path) -> Iterator[StartCommand]:
    """Starts the real command, as many times as the test needs."""
    with ExitStack() as started:

        def start(
            *arguments: str,
            files: Mapping[str, str] | None = None,
            env: Mapping[str, str] | None = None,
            cwd: Path | None = None,
            ready: bool = True,
            program: tuple[str, ...] = TWINSPAN,
        ) -> Command:
            directory = cwd or tmp_path
            write_files(directory, files or {})
            process = Command(arguments, cwd=directory, env=env, program=program)
            started.callback(process.kill)
            if ready:
                assert process.url
            return process

        yield start


@pytest.fixture
def curl() -> str:
    """The path of curl."""
    return tool("curl", "curl")


# For one module, not for the session: while playwright runs, its event loop counts as running on
# this thread, and a test that calls asyncio.run() would fail.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, without a window."""
    executable = tool(
        "chromium",
        "chromium",
        "chromium-browser",
        "google-chrome",
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=CHROMIUM_ARGUMENTS,
            # Chromium refuses to start its sandbox as root.
            chromium_sandbox=os.geteuid() != 0,
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a profile of its own: no cookies, no cache."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(15_000)
        yield page
