"""Data sets: loading, checking, and parting them into pool, oracle and test set."""

from jaxdal.data.arrays import fingerprint, from_arrays
from jaxdal.data.oracle import Oracle, split
from jaxdal.data.table import TABLE, Info, check_name, info, load, own

__all__ = ["TABLE", "Info", "Oracle", "check_name", "fingerprint", "from_arrays", "info", "load", "own", "split"]
