"""ALBL: the bandit against EXP4.P as its paper has it, its batches against those of its experts, its memory."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from labs import stopped_and_continued
from reference import albl as reference
from selecting import alone, some_pool, split, spread

from jaxdal import naming, strategies
from jaxdal.errors import InputError
from jaxdal.strategies.albl import Record, albl, exp4p, probabilities

N, K = 90, 6  # examples, picks
PAIR = ("least_confidence", "margin")  # experts that take a moment to compile
CHEAP = albl(experts=PAIR)
MODES = {"iwacc": CHEAP, "reference": albl(PAIR, mode="reference"), "horizon": albl(PAIR, horizon=9, delta=0.05)}


def pool(seed: int) -> dict[str, np.ndarray]:
    """Signals of a network, by name."""
    made = some_pool(seed, N, 5)
    return made | {"probs": np.asarray(jax.nn.softmax(made["logits"]))}


@functools.cache
def compiled(strategy, k):
    return jax.jit(lambda key, known, memory, *found: strategy.select(key, known, k, memory, *found))


def query(strategy, made, known, memory, key, k=K):
    """One query: -> (picks, memory on the host)."""
    found = [made[signal.name] for signal in strategy.needs]
    return jax.tree.map(np.asarray, compiled(strategy, k)(key, known, memory, *found))


# The bandit.


def test_two_rounds_by_hand():
    """Two experts, each with chance 1/2. The second is asked and half of its batch of 4 was answered rightly."""
    known = np.array([1, 1, 0, 0, 2, 2, -1, -1, -1], np.int32)
    answer = np.where(np.arange(9) < 4, 1, -1).astype(np.int32)
    record = Record(jnp.zeros(2), jnp.int32(1), jnp.int32(1), np.where(answer > 0, np.float32(0.5), 0), answer)
    probs = np.full((9, 3), 1 / 3, np.float32)
    _, after = query(CHEAP, {"probs": probs}, known, record, jax.random.key(0), 2)
    # r = (1 + 1 + 0 + 0) / 4 / (2 * 1/2) = 1/2; p_min = 1/20; sqrt(ln(2 / 0.1) / (2 * 1)) / p = 2.4477
    bonus = 0.025 * 2.4477468
    np.testing.assert_allclose(after.log_weight, [bonus, 0.025 * 0.5 / 0.5 + bonus], rtol=1e-6)
    # Then: p = 0.9 w / sum w + 0.05, with w_2 / w_1 = exp(0.025).
    expected = 0.9 / (1 + math.exp(-0.025)) + 0.05
    assert after.queries == 2
    assert after.probability[after.answer >= 0] == pytest.approx([expected if after.arm else 1 - expected] * 2)


def test_a_reward_is_at_most_one():
    """An expert with a chance of 0.157 was right about all four: 1 / (2 * 0.157) = 3.2 before it is clipped."""
    known, answer = np.array([1, 1, 2, 2, -1], np.int32), np.array([1, 1, 2, 2, -1], np.int32)
    log_weight = np.float32([2, 0])
    p = np.asarray(probabilities(jnp.asarray(log_weight)))
    assert p[1] == pytest.approx(0.1573, rel=1e-3)
    record = Record(log_weight, jnp.int32(1), jnp.int32(3), np.where(known > 0, p[1], np.float32(0)), answer)
    found = exp4p(record, known, answer, 0.1, None)
    expected = log_weight + 0.025 * (np.array([0, 1 / p[1]]) + math.sqrt(math.log(20) / 6) / p)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(2))
def test_weights_are_those_of_the_papers(mode, seed):
    """Seven queries, where the labels that are revealed agree with the network two times out of three."""
    strategy, rng = MODES[mode], np.random.default_rng(seed)
    made = pool(seed)
    known, memory = made["known"], strategy.memory(N)
    start = known >= 0
    delta, horizon = (0.05, 9) if mode == "horizon" else (0.1, None)
    bandit = reference.Published(2, delta) if mode == "reference" else reference.Exp4P(2, 2, 1 / 20, delta)
    chance, arms = np.ones(N), set()
    batch = before = np.zeros(0, np.int32)
    for turn in range(7):
        answer = made["probs"].argmax(1)
        if turn:
            drawn = int(memory.arm)
            if mode == "reference":
                rows = np.flatnonzero(known >= 0)
                bandit.pay(drawn, answer[rows], known[rows], chance[rows])
            else:
                reward = reference.iw_accuracy(before[batch], known[batch], chance[batch], 2)
                bandit.pay(np.eye(2), drawn, reward, horizon or turn)
        picks, memory = query(strategy, made, known, memory, jax.random.key(100 * seed + turn))
        p = bandit.chances() if mode == "reference" else bandit.chances(np.eye(2))
        np.testing.assert_allclose(memory.log_weight, np.log(bandit.weight), rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(memory.probability[picks], p[memory.arm], rtol=1e-5)
        np.testing.assert_array_equal(np.flatnonzero(memory.answer >= 0), np.sort(picks))
        np.testing.assert_array_equal(memory.answer[picks], answer[picks])
        assert memory.queries == turn + 1
        batch, before = picks, answer
        chance[picks] = p[memory.arm]
        known = known.copy()
        known[picks] = np.where(rng.random(K) < 2 / 3, answer[picks], (answer[picks] + 1) % 4)
        made = made | {"probs": np.roll(made["probs"], 1, axis=1)}  # another network
        arms.add(int(memory.arm))
    assert arms == {0, 1}, "only one arm was asked: take other keys"
    np.testing.assert_array_equal(memory.probability > 0, (known >= 0) & ~start)


@pytest.mark.parametrize("log_weight", [[0.0, 0.0], [3.0, -2.0, 0.5], [0.0, 1e4], [-1e30, 0, 0, 5]])
def test_chances(log_weight):
    p = np.asarray(probabilities(jnp.float32(log_weight)))
    assert p.sum() == pytest.approx(1, abs=1e-6)
    assert (p >= 0.1 / len(p) - 1e-8).all()
    assert (np.argsort(p, kind="stable") == np.argsort(np.float32(log_weight), kind="stable")).all()


def test_experts_are_drawn_as_often_as_they_should():
    made, memory = pool(0), CHEAP.memory(N)._replace(log_weight=jnp.float32([0.0, 1.5]))
    select = jax.jit(jax.vmap(lambda key: CHEAP.select(key, made["known"], 1, memory, made["probs"])[1].arm))
    counts = np.bincount(select(jax.random.split(jax.random.key(0), 1000)), minlength=2)
    second = float(probabilities(memory.log_weight)[1])
    assert scipy.stats.binomtest(int(counts[1]), 1000, second).pvalue > 1e-3


def test_who_is_right_is_asked_more_often():
    """300 queries of one example, where one expert's are all answered rightly and the other's wrongly, or any.

    The first buys where the largest probability is small, the second where two are alike: different examples.
    """
    size, rng = 700, np.random.default_rng(0)
    odd = np.arange(size) % 2
    probs = jnp.float32(np.where(odd[:, None], [0.48, 0.48, 0.02, 0.02], [0.4, 0.2, 0.2, 0.2]))
    buyer = jnp.int32(odd)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def simulated(key, hidden):
        def turn(state, key):
            known, memory = state
            picks, memory = CHEAP.select(key, known, 1, memory, probs)
            return (known.at[picks].set(hidden[picks]), memory), memory.arm == buyer[picks[0]]

        known = jnp.full(size, -1, jnp.int32).at[:2].set(hidden[:2])
        (_, memory), as_planned = jax.lax.scan(turn, (known, CHEAP.memory(size)), jax.random.split(key, 300))
        return probabilities(memory.log_weight)[1], jnp.all(as_planned)

    found = []
    for right in (odd == 1, odd == 0, rng.random(size) < 0.5):
        chance, as_planned = simulated(jax.random.split(jax.random.key(1), 8), np.where(right, 0, 3).astype(np.int32))
        assert as_planned.all()
        found.append(float(np.mean(chance)))
    assert found[0] > 0.8
    assert found[1] < 0.2
    assert 0.4 < found[2] < 0.6


# Its batches.


TEXTS = ("random", "coreset", "margin")
THREE, EXPERTS = albl(experts=TEXTS), [strategies.build(text) for text in TEXTS]


@pytest.mark.parametrize("seed", range(2))
def test_a_batch_is_that_of_the_expert_who_is_asked(seed):
    strategy, made = THREE, pool(seed)
    asked = set()
    for number in range(8):
        key = jax.random.key(number)
        picks, memory = query(strategy, made, made["known"], strategy.memory(N), key)
        expert, own_key = EXPERTS[memory.arm], jax.random.split(key, 4)[1 + memory.arm]
        assert picks.tolist() == query(expert, made, made["known"], (), own_key)[0].tolist()
        asked.add(int(memory.arm))
    assert len(asked) == 3


def test_signals_are_shared():
    names = [signal.name for signal in albl(experts=("margin", "badge", "coreset")).needs]
    assert sorted(names) == ["features", "logits", "probs"]
    assert "probs" in [signal.name for signal in albl(experts=("badge", "badge")).needs]


def test_class_sorted_pool():
    """The arm is the same for one key; so are then the examples that it buys."""
    made = pool(3)
    order = np.argsort(made["known"] * 10 + made["logits"].argmax(1), kind="stable")
    after = {name: leaf[order] for name, leaf in made.items()}
    for seed in range(4):
        assert sorted(order[alone(CHEAP, after, K, seed)].tolist()) == sorted(alone(CHEAP, made, K, seed))


def test_all_that_is_left_and_answers_that_are_none():
    made = pool(4) | {"probs": np.full((N, 4), np.nan, np.float32)}
    left = int((made["known"] < 0).sum())
    picks, memory = query(CHEAP, made, made["known"], CHEAP.memory(N), jax.random.key(0), left)
    assert sorted(picks.tolist()) == np.flatnonzero(made["known"] < 0).tolist()
    everything = np.where(made["known"] < 0, 3, made["known"]).astype(np.int32)
    known = np.where(np.arange(N) == picks[0], -1, everything).astype(np.int32)  # a seed that diverged bought nothing
    for strategy in (CHEAP, MODES["reference"]):
        picks, memory = query(strategy, made, known, memory, jax.random.key(1), 1)
        assert known[picks[0]] == -1
        assert np.isfinite(memory.log_weight).all()


def test_devices_and_runs_at_once_change_nothing():
    pools = [pool(seed) for seed in range(3)]
    expected = [alone(CHEAP, made, K, seed) for seed, made in enumerate(pools)]
    assert spread(CHEAP, pools, K, devices=2) == expected
    assert split(CHEAP, pools[0], K, devices=8)[0] == expected[0]


# Its memory.


def test_memory_survives_an_interruption(blobs, tmp_path):
    undisturbed, continued, kept = stopped_and_continued(blobs, f"albl({PAIR})", tmp_path)
    assert continued == undisturbed
    for seed in range(2):
        _, arm, queries, probability, answer = (kept[-1][f"seed_{seed}_{place}"] for place in range(5))
        assert (int(arm) in (0, 1), int(queries)) == (True, 3)
        lines = [line for line in continued if line["seed"] == seed]
        bought = [pick for line in lines for pick in line["picks"]]
        assert np.flatnonzero(probability).tolist() == sorted(bought)
        assert np.flatnonzero(answer >= 0).tolist() == sorted(lines[2]["picks"])
        assert (kept[2][f"seed_{seed}_0"] > kept[1][f"seed_{seed}_0"]).all(), "everybody is paid after a query"


def test_what_cannot_be_is_refused():
    for experts in ((), ("margin",), "margin", (1, 2), {"margin": 1}):
        with pytest.raises(InputError, match="of albl is no tuple of two or more texts"):
            albl(experts=experts)
    with pytest.raises(InputError, match="unknown strategy 'margn': did you mean 'margin'"):
        albl(experts=("margn", "coreset"))
    for inner in ("cluster_margin", "mcadl", "albl", "albl(experts=('margin', 'coreset'))"):
        with pytest.raises(InputError, match="which has a memory"):
            albl(experts=("margin", inner))
    with pytest.raises(InputError, match="mode='libact' of albl is neither 'iwacc' nor 'reference'"):
        albl(mode="libact")
    with pytest.raises(InputError, match=r"mode=\[\] of albl is neither"):
        albl(mode=[])
    for options in ({"delta": 0}, {"delta": "no"}, {"horizon": 0}, {"horizon": 1.5}):
        with pytest.raises(InputError, match="of albl is not a"):
            albl(**options)
    with pytest.raises(InputError, match="horizon=12 of albl changes nothing with mode='reference'"):
        albl(mode="reference", horizon=12)


def test_an_expert_that_trains_in_its_own_way_is_refused(monkeypatch):
    own = strategies.build("margin")._replace(wrap=lambda trainer: trainer)
    monkeypatch.setitem(strategies.STRATEGIES, "own", lambda: own)
    with pytest.raises(InputError, match="albl can not ask 'own', which trains"):
        albl(experts=("own", "margin"))
    with pytest.raises(InputError, match="albl can not ask 'ssl_consistency', which is made for --trainer=mixmatch"):
        albl(experts=("ssl_consistency", "margin"))


def test_options_can_be_given_as_text_and_name_the_experiment():
    made = strategies.build("albl(experts=('margin', 'bald(draws=3)'), mode='reference')")
    assert [signal.name for signal in made.needs] == ["probs", "mutual_information_3"]
    name = naming.of_strategy(made)
    assert "experts=('margin', 'bald(draws=3)')" in name
    assert "mode='reference'" in name
    assert " at 0x" not in name, "another name in every process"
