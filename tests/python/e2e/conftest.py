"""Servers that a whole module of tests shares."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
from e2e.wire import FOR_TESTS
from support import Command

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from e2e.wire import StartShared

# Its assertions are those of tests.
pytest.register_assert_rewrite("e2e.shops")


@pytest.fixture(scope="module")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartShared]:
    """Starts the real command for all tests of a module; it finds `tests/python/apps` as `apps`."""
    with ExitStack() as started:

        def start(*arguments: str, env: Mapping[str, str] | None = None) -> Command:
            directory = tmp_path_factory.mktemp("server")
            process = Command((*arguments, *FOR_TESTS), cwd=directory, env=env)
            started.callback(process.kill)
            assert process.url
            return process

        yield start


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    """A client that follows no redirect and asks nobody but the server under test."""
    with httpx.Client(trust_env=False, timeout=20) as client:
        yield client
