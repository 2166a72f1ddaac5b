"""ALBL: a bandit that learns whom to ask, one strategy per query."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxdal import signals
from jaxdal.errors import InputError
from jaxdal.types import Array, Strategy, Tree

EVEN = 0.1  # A p_min, the share of the chance that is spread evenly


class Record(NamedTuple):
    """What the bandit remembers. A experts, N examples."""

    log_weight: Array  # f32[A]
    arm: Array  # i32[], the expert that was asked last, -1 before the first query
    queries: Array  # i32[], so far
    probability: Array  # f32[N], with which the expert that bought the example was drawn; 0 for what none has bought
    answer: Array  # i32[N], of the network when it had not seen the label, for the last batch; -1 elsewhere


def probabilities(log_weight: Array) -> Array:
    """Of being asked: (1 - A p_min) w / sum w + p_min with p_min = 1 / 10 A. f32[A] -> f32[A], which sum to 1."""
    return (1.0 - EVEN) * jax.nn.softmax(log_weight) + EVEN / len(log_weight)


def exp4p(record: Record, known: Array, answer: Array, delta: float, horizon: int | None) -> Array:
    """Pay the experts after a query, by EXP4.P (Beygelzimer et al. 2011, algorithm 1): -> log_weight.

    s being the expert that bought the last batch B, y_j a label and f(j) the answer of the network before it knew that,
        r = mean over j in B of [f(j) = y_j] / (A p_s), clipped to [0, 1],
        log w_a += p_min / 2 ([a = s] r / p_s + sqrt(ln(A / delta) / (A T)) / p_a)    for every expert a.
    """
    del answer
    arms = len(record.log_weight)
    p = probabilities(record.log_weight)
    batch = (record.answer >= 0) & (known >= 0)
    right = batch & (record.answer == known)
    paid = jnp.sum(1.0 / jnp.where(right, arms * record.probability, jnp.inf)) / jnp.maximum(count(batch), 1.0)
    rounds = jnp.maximum(record.queries, 1).astype(jnp.float32) if horizon is None else jnp.float32(horizon)
    played = jax.nn.one_hot(record.arm, arms)  # nobody before the first query
    bonus = jnp.sqrt(math.log(arms / delta) / (arms * rounds)) / p
    gain = played * jnp.minimum(paid, 1.0) / p + bonus
    return record.log_weight + jnp.where(record.arm < 0, 0.0, EVEN / arms / 2.0 * gain)


def as_published(record: Record, known: Array, answer: Array, delta: float, horizon: int | None) -> Array:
    """Pay the expert that was asked as the comparison's published code does: -> log_weight.

    r = mean over all labelled j of [f(j) = y_j] / a_j, f being the network that has just been trained on them, a_j the
    probability with which j was bought, 1 for the start set; log w_s += p_min / 2 (r + sqrt(ln(A / delta) / A) / p_s).
    """
    del horizon
    arms = len(record.log_weight)
    p = probabilities(record.log_weight)
    right = (known >= 0) & (answer == known)
    bought = record.probability > 0
    paid = jnp.sum(1.0 / jnp.where(right, jnp.where(bought, record.probability, 1.0), jnp.inf))
    gain = paid / jnp.maximum(count(known >= 0), 1.0) + math.sqrt(math.log(arms / delta) / arms) / p
    return record.log_weight + EVEN / arms / 2.0 * gain * jax.nn.one_hot(record.arm, arms)


def count(which: Array) -> Array:
    """bool[N] -> f32[]."""
    return jnp.sum(which, dtype=jnp.float32)


PAY = {"iwacc": exp4p, "reference": as_published}


def albl(
    experts: tuple[str, ...] = ("least_confidence", "coreset"), mode: str = "iwacc", delta: float = 0.1,
    horizon: int | None = None,
) -> Strategy:  # fmt: skip
    """Active learning by learning: draw one of several strategies for every query, by what its batches were worth.

    Hsu and Lin (AAAI 2015), whose bandit is EXP4.P. (The comparison cites another paper for it, on adversarial sampling
    for active learning, WACV 2020; the header of its code names the right one.) As there, an arm is an expert that buys
    a whole batch. The original draws one example at a time from what the experts propose.

    experts: texts such as "bald(draws=20)", of strategies that keep no memory and train as all others do. All of them
        choose in every round, since under vmap there is no branch that is not taken: a query costs the sum of theirs.
    mode: "iwacc", the reward of the original, corrected for batches (`exp4p`), or "reference", that of the comparison's
        published code (`as_published`). Its reward is accuracy on what the network was just trained on: close to 1 or
        above whoever is asked. It is neither clipped nor divided by p_s, only the expert that was asked is paid, and T
        is missing.
    delta: how likely the bound of EXP4.P may fail. horizon: its T, the number of queries; None counts those so far.
    It learns slowly: if one of two experts is always right and the other never, the one is asked with a chance of 0.56
    after 12 queries, and of 0.87 after 300 (means of simulations, "iwacc").

    Deviations of "iwacc" from the original:
    - A label counts by the answer that was given before it was known, once, for the expert that bought it. There, the
      current network is asked about all that was bought so far, most of which it was trained on.
    - IW-ACC there divides by the number of examples, among which one is drawn; here by the number of experts. Without
      it the clipped reward would be 1 for whoever is right half of the time.
    - With whole batches as arms, IW-ACC is no unbiased estimate of accuracy any more: easy batches are paid best.
    - p_min is 1 / (10 A), as in the comparison, where it is sqrt(ln A / (A T)); and no expert draws at random.
    - Weights are kept as logarithms, which neither overflow nor vanish: only their ratios count.
    """
    from jaxdal.strategies import build  # the table that this is in

    if not (isinstance(experts, tuple | list) and len(experts) > 1 and all(isinstance(text, str) for text in experts)):
        raise InputError(f"experts={experts!r} of albl is no tuple of two or more texts that name strategies")
    if mode not in tuple(PAY):  # it may be a list, which no dict can look up
        raise InputError(f"mode={mode!r} of albl is neither {' nor '.join(map(repr, PAY))}")
    if not (isinstance(delta, int | float) and 0 < delta <= 1):
        raise InputError(f"delta={delta} of albl is not a probability")
    if not (horizon is None or (isinstance(horizon, int) and horizon >= 1)):
        raise InputError(f"horizon={horizon} of albl is not a number of queries")
    if horizon is not None and mode == "reference":
        raise InputError(f"horizon={horizon} of albl changes nothing with mode='reference', which has no T")
    members = {text: build(text) for text in experts}
    for text, member in members.items():
        if jax.tree.leaves(member.memory(1)):
            raise InputError(f"albl can not ask {text!r}, which has a memory: it would not see what others bought")
        if member.wrap is not Strategy._field_defaults["wrap"]:
            raise InputError(f"albl can not ask {text!r}, which trains the network in a way of its own")
        if member.trainer != Strategy._field_defaults["trainer"]:
            raise InputError(f"albl can not ask {text!r}, which is made for --trainer={member.trainer}")
    needs = {signal.name: signal for member in members.values() for signal in (signals.probs, *member.needs)}
    names = tuple(needs)  # the only thing that `select` encloses besides options: they name it in the journal

    def memory(size: int) -> Record:
        return Record(
            jnp.zeros(len(experts)), jnp.int32(-1), jnp.int32(0), jnp.zeros(size), jnp.full(size, -1, jnp.int32)
        )  # fmt: skip

    def select(key: Array, known: Array, k: int, memory: Record, *found: Array) -> tuple[Array, Tree]:
        values = dict(zip(names, found, strict=True))
        answer = jnp.argmax(values["probs"], axis=-1).astype(jnp.int32)
        log_weight = PAY[mode](memory, known, answer, delta, horizon)
        p = probabilities(log_weight)
        arm_key, *keys = jax.random.split(key, 1 + len(experts))
        arm = jax.random.categorical(arm_key, jnp.log(p)).astype(jnp.int32)
        batches = []
        for expert_key, text in zip(keys, experts, strict=True):
            own = [values[signal.name] for signal in members[text].needs]
            batches.append(members[text].select(expert_key, known, k, (), *own)[0])
        picks = jnp.stack(batches)[arm]
        return picks, Record(
            log_weight, arm, memory.queries + jnp.int32(1), memory.probability.at[picks].set(p[arm]),
            jnp.full_like(memory.answer, -1).at[picks].set(answer[picks]),
        )  # fmt: skip

    return Strategy(tuple(needs.values()), select, memory)
