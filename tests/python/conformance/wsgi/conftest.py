"""Serves one WSGI application for each test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from conformance.sites import Site
from conformance.wsgi.apps import Bare, Faulty, wrapped
from twinspan.testing import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.wsgi.apps import Application, MakeSite


@pytest.fixture
def site(protocol: str, mount: str, capfd: pytest.CaptureFixture[str]) -> Iterator[MakeSite]:
    """Serves an application for this test; what the validator finds in it fails the test."""
    with ExitStack() as started:
        validated: list[Site] = []

        def make(app: Application | Faulty | Bare, **options: object) -> Site:
            served = wrapped(app)
            server = Server(
                *(() if mount else (served,)), mounts={mount: served} if mount else None, **options
            )
            made = Site(server, protocol, mount, capfd)
            server.start()
            started.callback(made.close)
            if not isinstance(app, (Bare, Faulty)):
                validated.append(made)
            return made

        yield make
    for made in validated:
        # Raised by the validator; an application under test has no other use for it.
        assert "AssertionError" not in made.log()
