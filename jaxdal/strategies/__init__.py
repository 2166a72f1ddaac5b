"""The table of strategies: `--strategy=NAME` or, with hyper-parameters, `--strategy='NAME(option=value)'`."""

from collections.abc import Callable

from jaxdal.calls import parse_call
from jaxdal.strategies.adversarial_bim import adversarial_bim
from jaxdal.strategies.albl import albl
from jaxdal.strategies.badge import badge
from jaxdal.strategies.bald import bald
from jaxdal.strategies.cluster_margin import cluster_margin
from jaxdal.strategies.coreset import coreset
from jaxdal.strategies.gcn import core_gcn, uncertain_gcn
from jaxdal.strategies.kmeans import kmeans
from jaxdal.strategies.learning_loss import learning_loss
from jaxdal.strategies.mcadl import mcadl
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import entropy, least_confidence, margin, random
from jaxdal.strategies.ssl import ssl_consistency, ssl_diff2aug_direct, ssl_diff2aug_kmeans, ssl_random
from jaxdal.strategies.vaal import vaal
from jaxdal.strategies.waal import waal
from jaxdal.types import Strategy

__all__ = ["STRATEGIES", "build", "top_unknown"]

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "random": random,
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "adversarial_bim": adversarial_bim,
    "albl": albl,
    "badge": badge,
    "bald": bald,
    "cluster_margin": cluster_margin,
    "core_gcn": core_gcn,
    "coreset": coreset,
    "kmeans": kmeans,
    "learning_loss": learning_loss,
    "mcadl": mcadl,
    "ssl_consistency": ssl_consistency,
    "ssl_diff2aug_direct": ssl_diff2aug_direct,
    "ssl_diff2aug_kmeans": ssl_diff2aug_kmeans,
    "ssl_random": ssl_random,
    "uncertain_gcn": uncertain_gcn,
    "vaal": vaal,
    "waal": waal,
}


def build(text: str) -> Strategy:
    """Make the strategy that `text` names, such as "margin" or "bald(draws=20)".

    Raises:
        InputError: the name is unknown, or the options are not those of the strategy.
    """
    return parse_call(text, STRATEGIES, "strategy", Strategy)
