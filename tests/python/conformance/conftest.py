"""Every test of a clause runs on each protocol, the application at the root and below a prefix.

A clause that means nothing in some protocol is marked with one of the marks of `sites`, whose name
is the reason.
"""

from __future__ import annotations

import pytest
from conformance.clients import PROTOCOLS


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=["", "/mounted"], ids=["root", "mounted"])
def mount(request: pytest.FixtureRequest) -> str:
    prefix: str = request.param
    return prefix
