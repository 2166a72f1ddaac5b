"""Deep active learning in JAX and Flax."""

from jaxdal.ask import Asked, ask
from jaxdal.data import from_arrays
from jaxdal.errors import InputError, OutOfMemoryError
from jaxdal.loop import Result, run, run_together
from jaxdal.predict import predict
from jaxdal.types import Dataset, Signal, Strategy, Trainer

__all__ = [
    "Asked", "Dataset", "InputError", "OutOfMemoryError", "Result", "Signal", "Strategy", "Trainer", "ask",
    "from_arrays", "predict", "run", "run_together",
]  # fmt: skip
