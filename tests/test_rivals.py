"""The rivals in PyTorch at toy size: that they do the work that ours do. Not their figures."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from reference import cluster_margin as slow

from jaxdal import losses, settings

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package
torch = pytest.importorskip("torch")  # which the modules below import

# ruff: noqa: E402
from benchmarks import rounds, train_ssl_step, train_step
from benchmarks.rival_torch import Rival, network
from benchmarks.rival_torch_cluster_margin import clusters, picks
from benchmarks.rival_torch_loader import LoaderRival
from benchmarks.rival_torch_mixmatch import MixMatchLoaderRival, MixMatchRival

B = 6


@pytest.mark.parametrize(("model", "crop", "parameters"), [("lenet", 0, 21_840), ("resnet18_thin", 4, 701_466)])
def test_rival_does_the_same_work(model, crop, parameters):
    images = rounds.synthetic((28, 28, 1) if model == "lenet" else (32, 32, 3), 32)
    budget = {"n_start": 32, "n_query": 1, "n_end": 32}
    rules = settings.resolve(train_step.PROTOCOL[model], images, "random", model=model, batch=8, **budget)
    assert rules.crop == crop
    rival = Rival(rules, images.train_x, images.train_y, np.arange(32), best=False)
    assert sum(parameter.numel() for parameter in rival._parameters) == parameters
    before = [parameter.detach().clone() for parameter in rival._parameters]
    rival.steps(1)
    assert rival.finite()
    assert not any(bool((old == new).all()) for old, new in zip(before, rival._parameters, strict=True))


@pytest.mark.parametrize("model", ["lenet", "resnet18_thin"])
def test_rival_behind_a_loader(model):
    """Each image of a batch is a crop of a labelled one, mirrored or not, normalised, with the label of that."""
    images = rounds.synthetic((28, 28, 1) if model == "lenet" else (32, 32, 3), 20)
    budget = {"n_start": 16, "n_query": 1, "n_end": 16}
    rules = settings.resolve(train_step.PROTOCOL[model], images, "random", model=model, batch=8, **budget)
    known, side, border = np.arange(4, 20), images.train_x.shape[1], rules.crop
    rival = LoaderRival(rules, images.train_x, images.train_y, known, workers=0)
    x, y = (np.asarray(part) for part in rival._next())
    pixels = (x.transpose(0, 2, 3, 1) * rules.std + rules.mean) * 255
    padded = np.pad(images.train_x[known], ((0, 0), (border, border), (border, border), (0, 0))).astype(np.float32)
    views = [padded[:, i : i + side, j : j + side] for i in range(2 * border + 1) for j in range(2 * border + 1)]
    views += [view[:, :, ::-1] for view in views if rules.flip]
    for image, label in zip(pixels, y, strict=True):
        found = {int(n) for view in views for n in np.flatnonzero(np.abs(view - image).max((1, 2, 3)) < 0.01)}
        assert [images.train_y[known[n]] for n in found] == [label]
    for _ in range(3):  # the second epoch begins
        rival.steps(1)
    assert rival.finite()


def mixmatch(model: str, best: bool = False) -> MixMatchRival:
    rules, images = mixmatch_rules(model)
    torch.manual_seed(0)
    return MixMatchRival(rules, images.train_x, images.train_y, np.arange(16), best=best)


def mixmatch_rules(model: str):
    images = rounds.synthetic((28, 28, 1) if model == "lenet" else (32, 32, 3), 40)
    budget = {"n_start": 16, "n_query": 1, "n_end": 16}
    protocol = train_step.PROTOCOL[model]
    return settings.resolve(protocol, images, "random", model=model, batch=B, trainer="mixmatch", **budget), images


def test_mixmatch_rival_minimises_our_loss():
    """Of a network that is one matrix product: with `jaxdal.losses`, which are tested against the paper's formulas."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 10)).astype(np.float32)
    x, first, second = rng.standard_normal((3, B, 4, 1, 1)).astype(np.float32)
    labels, share = rng.integers(0, 10, B), rng.uniform(0.5, 1, (3 * B, 1)).astype(np.float32)
    partner = rng.permutation(3 * B)

    rival = mixmatch("lenet")
    rival._model = lambda x, chunks: x.flatten(1) @ torch.from_numpy(kernel)
    rival._mixing = lambda count: (torch.from_numpy(share), torch.from_numpy(partner))
    rival._views = lambda batch: tuple(map(torch.from_numpy, (x, labels, first, second)))
    rival._taken += rival._ramp / 2
    found = rival._forward(None)

    images = np.concatenate([x, first, second]).reshape(3 * B, 4)
    probs = torch.softmax(torch.from_numpy(images[B:] @ kernel), 1).numpy().reshape(2, B, 10).mean(0)
    guess = losses.sharpen(probs, 0.5)
    targets = jnp.concatenate([np.eye(10, dtype=np.float32)[labels], guess, guess])
    images, targets = (losses.mix(share[:, 0], leaf, leaf[partner]) for leaf in (images, targets))
    logits = images @ kernel
    expected = losses.soft_cross_entropy(logits[:B], targets[:B])
    expected += 50 * losses.squared_difference(logits[B:], targets[B:])
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_weights_of_the_mixmatch_rival_are_averaged():
    rival = mixmatch("resnet18_thin")
    before = [leaf.clone() for leaf in rival._live]
    rival.steps(1)
    assert rival.finite()
    for old, new, average in zip(before, rival._live, rival._average, strict=True):
        assert not bool((old == new).all())
        torch.testing.assert_close(average, old + 0.001 * (new - old), rtol=1e-5, atol=1e-7)


def test_parts_of_a_batch_have_statistics_of_their_own():
    torch.manual_seed(0)
    together, apart = network("resnet18_thin", 3, 10), network("resnet18_thin", 3, 10)
    apart.load_state_dict(together.state_dict())
    parts = [scale * torch.randn(B, 3, 32, 32) for scale in (1, 2, 3)]
    torch.testing.assert_close(together(torch.cat(parts), 3), torch.cat([apart(part) for part in parts]))
    torch.testing.assert_close(together.state_dict(), apart.state_dict())


def test_the_best_mixmatch_rival_does_the_same_in_two_passes(monkeypatch):
    """Not compiled, which takes minutes here."""
    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    share, partner = 0.5 + torch.rand(3 * B, 1) / 2, torch.randperm(3 * B)
    lost, passes, moved = [], [], []
    for best in (False, True):
        rival, sizes = mixmatch("resnet18_thin", best), []
        rival._mixing = lambda count: (share, partner)
        rival._taken += rival._ramp / 2  # the second loss has a weight
        rival._model.register_forward_hook(lambda module, given, answer, sizes=sizes: sizes.append(len(answer)))
        rival.steps(1)
        lost.append(float(rival.last))
        passes.append(sizes)
        moved.append(rival._model.norm.running_var)
    assert passes == [[B] * 5, [2 * B, 3 * B]]
    assert lost[1] == pytest.approx(lost[0], rel=0.01)
    torch.testing.assert_close(*moved, rtol=0.01, atol=0.01)


def test_shares_of_the_best_mixmatch_rival_are_those_of_a_beta_distribution(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    (plain, _), (own, partner) = (mixmatch("lenet", best)._mixing(20_000) for best in (False, True))
    torch.testing.assert_close(plain.sort(0).values, own.sort(0).values, rtol=0, atol=0.02)
    assert sorted(partner.tolist()) == list(range(20_000))


def test_mixmatch_rival_behind_loaders():
    """Of every image there are two views here, itself and its mirror image."""
    rules, images = mixmatch_rules("lenet")
    torch.manual_seed(0)
    rival = MixMatchLoaderRival(rules, images.train_x, images.train_y, np.arange(16), workers=0)
    x, labels, first, second = (np.asarray(part) for part in rival._next())
    pixels = (images.train_x.transpose(0, 3, 1, 2) / 255 - rules.mean) / rules.std

    def place(view: np.ndarray) -> int:
        apart = [np.abs(pixels - one).max((1, 2, 3)) for one in (view, view[:, :, ::-1])]
        return np.flatnonzero(np.minimum(*apart) < 1e-4).item()

    places = [place(view) for view in x]
    assert max(places) < 16
    assert labels.tolist() == images.train_y[places].tolist()
    places = [place(view) for view in first]
    assert places == [place(view) for view in second]
    assert min(places) >= 16
    assert len(set(places)) == B
    assert 0 < sum(np.array_equal(*views) for views in zip(first, second, strict=True)) < B, "each by its own draw"
    rival.steps(5)  # the labelled ones begin anew after two
    assert rival.finite()


def test_every_rival_of_a_step_can_be_asked_for(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, mode: function)
    monkeypatch.setattr("benchmarks.rival_torch_loader.WORKERS", 0)
    rules, images = mixmatch_rules("lenet")
    made = [train_ssl_step.rival(rules, images, np.arange(16), name) for name in train_ssl_step.RIVALS]
    kinds = {"eager": MixMatchRival, "best": MixMatchRival, "loader": MixMatchLoaderRival}
    assert {name: type(one) for name, one in zip(train_ssl_step.RIVALS, made, strict=True)} == kinds
    assert [one._best for one in made] == [name == "best" for name in kinds]
    assert list(train_ssl_step.RIVALS) == list(train_step.RIVALS)
    assert len(set(train_ssl_step.RIVALS.values()) | set(train_step.RIVALS.values())) == 6


@pytest.mark.parametrize("count", [1, 5, 32, 40])
def test_clusters_of_torch_are_those_of_the_definition(count):
    features = np.random.default_rng(3).standard_normal((40, 6)).astype(np.float32)
    found = clusters(torch.from_numpy(features), count).numpy()
    expected = slow.partition(slow.average_linkage(features), 40, count)
    assert {frozenset(np.flatnonzero(found == number).tolist()) for number in np.unique(found)} == expected


def test_picks_of_torch_are_those_of_the_definition():
    """With members of a cluster by margin, of which some are equal, and fewer examples than candidates."""
    rng = np.random.default_rng(0)
    probs = rng.integers(1, 9, (60, 3)).astype(np.float32)
    known, cluster = np.where(rng.random(60) < 0.3, 0, -1), rng.integers(0, 20, 60)
    top = np.sort(probs, axis=1)
    margins = top[:, 2] - top[:, 1]
    unknown = int(np.sum(known < 0))
    for candidates in (20, unknown):
        given = (torch.from_numpy(part) for part in (probs, known >= 0, cluster, margins))
        found = picks(*given, 10, candidates).tolist()
        assert found == slow.picks(margins, known, cluster, candidates // 10 if candidates == 20 else 6, 10)
