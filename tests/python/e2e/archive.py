"""What the Django project in `tests/python/apps/archive` needs before it is served."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from e2e.wire import TESTS

if TYPE_CHECKING:
    from pathlib import Path

APPLICATION = "apps.archive.wsgi:application"
USER, PASSWORD = "ada", "kettle"

PREPARE = f"""
import django
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
call_command("makemigrations", check=True, verbosity=0)
call_command("migrate", verbosity=0)
User.objects.create_superuser({USER!r}, password={PASSWORD!r})
"""


def prepare(directory: Path) -> dict[str, str]:
    """Makes the database with its user below `directory`; returns the project's environment."""
    (directory / "temporary").mkdir()
    environment = {"ARCHIVE": str(directory), "DJANGO_SETTINGS_MODULE": "apps.archive.settings"}
    subprocess.run(
        [sys.executable, "-c", PREPARE], env={**os.environ, **environment}, cwd=TESTS, check=True
    )
    return environment
