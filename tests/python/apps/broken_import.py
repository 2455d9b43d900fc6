"""Cannot be imported."""

import a_module_that_nobody_has  # pyright: ignore[reportMissingImports]  # noqa: F401
