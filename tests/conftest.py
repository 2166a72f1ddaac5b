"""Eight simulated devices, strict dtype promotion, warnings as errors (pyproject), one cache of compiled programs."""

import os
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# Before jax is imported anywhere: how many devices a CPU pretends to be, and how it compiles, most of what tests take.
# LLVM's second level writes the vectors, and the products fused with sums, that its third does, in three fifths of the
# time, and one piece takes less than many; see also `full_optimisation`. Where there still is the choice (not in jax
# 0.12), the older way to write kernels takes three fifths of the time if LLVM does not optimise.
os.environ["XLA_FLAGS"] = " ".join([
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=2",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else "",
])  # fmt: skip
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # of commands that tests start, too; see `full_optimisation`

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # `import reference...`

CACHE = Path(os.environ.get("JAXDAL_TEST_CACHE", Path(tempfile.gettempdir()) / f"jaxdal-tests-{os.getuid()}"))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # small programs are many


@pytest.fixture(scope="session", autouse=True)
def _small_models():
    """`--model=tiny`; in no table while tests are collected, so that tests over all models have those of users only."""
    import tiny

    from jaxdal.models import MODELS

    MODELS |= {"tiny": tiny.tiny, "two_stages": tiny.two_stages}


@pytest.fixture(scope="module")
def full_optimisation() -> Iterator[None]:
    """Let LLVM optimise, for tests of what that makes of numbers: steps of models, packs, many devices, stored picks.

    Elsewhere the optimisations of LLVM are left out, which take a third of the time of compiling: XLA does to a program
    what it does as ever, but the code for a processor is plain, without vectors and without products fused with sums.
    A command with nothing but a user's settings is in test_main.py.
    """
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def blobs():
    """A data set that is learnt in a few steps: each class a bright spot at its own place, with noise."""
    from jaxdal import from_arrays

    rng = np.random.default_rng(0)

    def draw(size: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(size, dtype=np.int32) % 4
        images = rng.integers(0, 60, (size, 8, 8, 1))
        for label, (row, column) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
            images[labels == label, row : row + 4, column : column + 4] += 120
        return images.astype(np.uint8), labels

    return from_arrays(*draw(200), *draw(80), num_classes=4)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache of decoded images, which is the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jaxdal" / "images"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address and its folder."""
    from publishing import serving

    with serving(tmp_path / "www") as address:
        yield address, tmp_path / "www"
