"""The command ``twinspan``, also as ``python -m twinspan``."""

import sys

from ._twinspan import run


def main() -> None:
    """Runs the command line and ends the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
