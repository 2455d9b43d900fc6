"""One server for each module, with an application at the root and one below a prefix.

A test says what they do, and at its end no call of an application may be left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
from conformance.asgi.apps import Place, Site, nothing
from twinspan.testing import Server

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stage(NamedTuple):
    server: Server
    places: dict[str, Place]


@pytest.fixture(scope="module")
def loop() -> str:
    """The event loop of a module; one that is about loops has a fixture of its own."""
    return "auto"


@pytest.fixture(scope="module")
def stage(loop: str) -> Iterator[Stage]:
    places = {"": Place(), "/mounted": Place()}
    with Server(places[""], mounts={"/mounted": places["/mounted"]}, loop=loop) as server:
        yield Stage(server, places)


@pytest.fixture
def site(
    stage: Stage, protocol: str, mount: str, capfd: pytest.CaptureFixture[str]
) -> Iterator[Site]:
    """Where the application of this test is served: `site.serve(app)`."""
    made = Site(stage.server, protocol, mount, capfd, stage.places[mount])
    yield made
    made.hang_up()
    made.serve(nothing)
    made.settle()
    assert "panicked" not in made.log()
