"""The table of trainers: `--trainer=NAME`."""

from jaxdal.trainers.supervised import supervised

TRAINERS = {
    "supervised": supervised,
}
