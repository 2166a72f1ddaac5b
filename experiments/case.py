"""What Figures 2 and 3 ask the kept networks of their round 0: features, answers and views of the whole pool."""

import hashlib
import json
from typing import NamedTuple

import jax
import numpy as np
from scipy.spatial.distance import pdist

from experiments.plans import Run
from experiments.records import Record, resolved
from jaxdal import augment, checkpoint, data, models, signals
from jaxdal.errors import InputError
from jaxdal.files import write_text
from jaxdal.journal import known_picks
from jaxdal.keys import keys_for
from jaxdal.parallel import Lanes
from jaxdal.signals import Gather
from jaxdal.strategies.ssl import view_variance
from jaxdal.types import Dataset, Pool

SAMPLE = 2000  # pool images whose mean distance stands for the pool's: 2 million pairs
MEASURES = ("diversity", "diversity_pixels", "uncertainty", "inconsistency")


class Signals(NamedTuple):
    """Of every image of the pool."""

    features: np.ndarray  # f32[N, d], input of the last layer
    probs: np.ndarray  # f32[N, K]
    variance: np.ndarray  # f32[N], strategies.ssl.view_variance


class Case:
    """The pool of one data set, and the program that scores it; loaded and compiled when it is first asked."""

    def __init__(self, run: Run, data_dir: str | None) -> None:
        self._run, self._data_dir = run, data_dir
        self._found: dict[str, Signals] = {}
        self._images: Dataset | None = None
        self._gather: Gather | None = None

    @property
    def images(self) -> Dataset:
        """All of the data set."""
        if self._images is None:
            self._images = data.load(self._run.dataset, self._data_dir)
        return self._images

    def look(self, record: Record, seed: int) -> Signals:
        """Score the pool with the network of round 0; strategies that share theirs are scored once.

        Raises:
            InputError: it was not kept.
        """
        variables = checkpoint.load(checkpoint.weights_path(record.folder, seed, 0))
        leaves = jax.tree.leaves(variables)
        name = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in leaves)).hexdigest() + f" {seed}"
        if name not in self._found:
            self._found[name] = self._score(variables, seed)
        return self._found[name]

    def _score(self, variables: dict, seed: int) -> Signals:
        device, size = jax.devices()[0], len(self.images.train_x)
        lanes = Lanes(1, [device])
        pool = Pool(lanes.shared(self.images.train_x))
        if self._gather is None:
            settings = resolved(self._run)
            model = models.build(settings.model, self.images.train_x.shape[1:], settings.num_classes)
            network = augment.network(model, settings.mean, settings.std, crop=settings.crop, flip=settings.flip)
            needs = (signals.features, signals.probs, view_variance())
            self._gather = Gather(lanes, network, needs, pool, 256 if device.platform == "cpu" else 2048)
        keys = lanes.lift(keys_for, "rs")(lanes.per_run(np.asarray([seed], np.uint32)), np.int32(0))
        whole = lanes.per_run(jax.tree.map(lambda leaf: np.asarray(leaf)[None], variables))
        known = lanes.per_run(np.full((1, size), -1, np.int32))
        return Signals(*(np.asarray(found)[0] for found in self._gather(keys, whole, known, pool)))

    def measured(self, record: Record, seed: int) -> dict[str, dict[str, float]] | None:
        """The measures of a run's picks and of all its unlabelled images, kept beside the journal; None: no network."""
        path = record.folder / f"measures_seed_{seed}.json"
        if path.exists():
            return json.loads(path.read_text())
        initial, picks = known_picks(record.groups, seed)
        if not picks or not len(picks[0]) or not checkpoint.weights_path(record.folder, seed, 0).exists():
            return None
        try:
            found = self.look(record, seed)
        except InputError:  # half a checkpoint
            return None
        pixels = self.images.train_x
        rest = np.setdiff1d(np.arange(len(pixels)), initial)
        sample = np.random.default_rng(0).permutation(rest)[:SAMPLE]
        pool = measures(rest, found, pixels, sample)
        told = {"picks": measures(picks[0], found, pixels, picks[0]), "pool": pool}
        write_text(path, json.dumps(told, indent=1) + "\n")
        return told


def measures(rows: np.ndarray, found: Signals, images: np.ndarray, sample: np.ndarray) -> dict[str, float]:
    """What Figure 2 shows of some images: the paper says these things in words, the definitions are ours.

    diversity: mean Euclidean distance of all pairs of `sample`, of features and of pixels (0 to 1); uncertainty: mean
    of 1 - max_c p_c on clean images; inconsistency: mean of the variance over views, summed over classes.
    """
    pixels = images[sample].reshape(len(sample), -1).astype(np.float64) / 255
    values = (
        pdist(found.features[sample].astype(np.float64)).mean(), pdist(pixels).mean(),
        (1 - found.probs[rows].max(axis=1)).mean(), found.variance[rows].mean(),
    )  # fmt: skip
    return dict(zip(MEASURES, map(float, values), strict=True))
