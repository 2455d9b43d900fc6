"""What an installed Twinspan looks like from outside: names, versions, commands."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import twinspan


def run(*arguments: str) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=30).stdout


def test_the_package_has_the_version_of_its_metadata() -> None:
    assert twinspan.__version__ == importlib.metadata.version("twinspan")


def test_type_checkers_may_use_the_package() -> None:
    assert files(twinspan).joinpath("py.typed").is_file()


def test_every_public_name_exists() -> None:
    assert [name for name in twinspan.__all__ if not hasattr(twinspan, name)] == []


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param([sys.executable, "-m", "twinspan"], id="module"),
        pytest.param([str(Path(sys.executable).with_name("twinspan"))], id="script"),
    ],
)
def test_the_command_names_itself_and_its_version(launcher: list[str]) -> None:
    assert run(*launcher, "--version").split() == ["twinspan", twinspan.__version__]


def test_importing_the_package_imports_neither_framework_nor_event_loop() -> None:
    loaded = run(sys.executable, "-c", "import twinspan, sys; print(*sys.modules)").split()
    assert not {"asyncio", "uvloop", "flask", "starlette", "django"} & set(loaded)
