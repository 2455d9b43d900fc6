"""A sample of the Autobahn test suite; `make conformance` runs all of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from conformance.websocket import autobahn

if TYPE_CHECKING:
    from pathlib import Path

    from support import Serve


# The suite is installed first where it is not there yet.
@pytest.mark.timeout(300)
def test_the_server_passes_a_sample_of_the_autobahn_test_suite(
    serve: Serve, tmp_path: Path
) -> None:
    try:
        cases = autobahn.chosen(autobahn.SAMPLE)
    except autobahn.MissingPythonError as error:
        pytest.skip(str(error))
    except autobahn.AutobahnError as error:
        if os.environ.get("CI") == "1":
            raise
        pytest.skip(str(error))
    assert len(cases) > 250
    results = autobahn.run(cases, serve(autobahn.echo).address, tmp_path)
    assert autobahn.problems(results) == ""
