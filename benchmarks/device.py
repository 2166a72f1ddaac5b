"""Which device JAX finds here, and whether checkpoints work: what the queue asks before it starts anything.

python -m benchmarks.device found.json
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.timing import environment
from jaxdal import checkpoint


def checkpoints() -> str | None:
    """Save a tree with Orbax and read it again: -> what went wrong."""
    tree = {"leaf": np.arange(3, dtype=np.float32)}
    try:
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder) / "tree", tree)
            np.testing.assert_array_equal(checkpoint.load(Path(folder) / "tree")["leaf"], tree["leaf"])
    except Exception as error:  # of whatever library is not what we think it is
        return f"{type(error).__name__}: {error}"
    return None


def main(argv: Sequence[str]) -> None:
    """Write what was found."""
    (path,) = argv
    found = environment(argv, "benchmarks.device")
    Path(path).write_text(json.dumps({**found, "checkpoints": checkpoints()}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
