"""Datasette, as its own command would build it, over a database that the test has made."""

import os
from typing import Any

from datasette.app import Datasette


def app() -> Any:
    settings = {"base_url": os.environ.get("DATA_BASE_URL", "/")}
    return Datasette([os.environ["DATA_FILE"]], settings=settings).app()
