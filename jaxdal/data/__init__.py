"""Data sets: loading, checking, and parting them into pool, oracle and test set."""

from jaxdal.data.arrays import fingerprint, from_arrays
from jaxdal.data.cache import Options
from jaxdal.data.checks import remarks
from jaxdal.data.oracle import Oracle, split
from jaxdal.data.share import share_asked, share_of_pool
from jaxdal.data.table import TABLE, Info, check_name, check_options, info, load, own

__all__ = [
    "TABLE",
    "Info",
    "Options",
    "Oracle",
    "check_name",
    "check_options",
    "fingerprint",
    "from_arrays",
    "info",
    "load",
    "own",
    "remarks",
    "share_asked",
    "share_of_pool",
    "split",
]
