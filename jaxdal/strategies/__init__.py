"""The table of strategies: `--strategy=NAME` or, with hyper-parameters, `--strategy='NAME(option=value)'`."""

from collections.abc import Callable

from jaxdal.calls import parse_call
from jaxdal.strategies.picking import top_unknown
from jaxdal.strategies.scores import entropy, least_confidence, margin, random
from jaxdal.types import Strategy

__all__ = ["STRATEGIES", "build", "top_unknown"]

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "random": random,
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
}


def build(text: str) -> Strategy:
    """Make the strategy that `text` names, such as "margin" or "bald(draws=20)".

    Raises:
        InputError: the name is unknown, or the options are not those of the strategy.
    """
    return parse_call(text, STRATEGIES, "strategy")
