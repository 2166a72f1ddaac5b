"""Where a journal was written: versions and devices."""

import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Return what a reader needs to judge figures: versions, devices and, in a checkout, the commit."""
    return {
        "jaxdal": _version("jaxdal"),
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "platform": devices[0].platform,
        "devices": [device.device_kind for device in devices],
        **({"processes": processes} if (processes := jax.process_count()) > 1 else {}),
    }


def source() -> str:
    """Return the SHA-256 of this package's own code: of two starts with equal ones, the same code ran."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a checkout that runs without being installed
        return None


def _commit() -> str | None:
    here = Path(__file__).parent
    told = os.environ.get("JAXDAL_COMMIT")  # by whoever copied a checkout without its .git
    if not (here.parent / ".git").exists():
        return told
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return told
