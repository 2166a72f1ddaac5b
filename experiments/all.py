"""All tables and figures, one after another.

python -m experiments.all --scale=smoke      # 2 CPU cores, minutes: does everything work?
python -m experiments.all --norun --results=DIR
"""

import importlib
import sys
from collections.abc import Sequence

from experiments import command
from experiments.plans import PLANS


def main(arguments: Sequence[str]) -> int:
    """Run every command with the same flags; the exit code is 1 if one of them failed."""
    codes = []
    for name in PLANS:
        module = importlib.import_module(f"experiments.{name}")
        codes.append(command.main(name, module.__doc__, module.render, arguments))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
