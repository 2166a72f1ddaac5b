"""Which runs a table or figure of arXiv 2212.03088 needs: functions of options, and nothing is run or read."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from experiments.published import DATASETS, METHODS
from experiments.scales import SCALES
from jaxdal import data, strategies, trainers
from jaxdal.budgets import Budget, count
from jaxdal.types import Trainer


class Size(NamedTuple):
    """Of a data set."""

    pool: int
    test: int
    image: tuple[int, int, int]


SIZES = {
    "digits": Size(1438, 359, (8, 8, 1)),
    "mnist": Size(60000, 10000, (28, 28, 1)),
    "fashion_mnist": Size(60000, 10000, (28, 28, 1)),
    "cifar10": Size(50000, 10000, (32, 32, 3)),
    "cifar100": Size(50000, 10000, (32, 32, 3)),
    "gtsrb": Size(39209, 12630, (32, 32, 3)),
    "gtsrb:competition": Size(26640, 12569, (32, 32, 3)),
    "tiny_imagenet": Size(100000, 10000, (64, 64, 3)),
}


class Run(NamedTuple):
    """One run: a strategy, a data set and a seed. What is not said here is that of preset and data set."""

    dataset: str
    strategy: str
    seed: int
    n_start: int  # images
    n_query: int
    n_end: int
    epochs: int
    preset: str = "paper"
    trainer: str | None = None  # None: the strategy's own
    eval_every: int = 0  # 1: accuracy_best as well
    pack: int = 0  # 1: alone, for honest seconds
    pool_share: str | None = None  # Figure 5: "40%" of the pool, drawn from the seed
    save_weights: bool = False
    way: tuple[tuple[str, Any], ...] = ()  # more options of `jaxdal.run`: network, batch, learning rate...

    @property
    def budget(self) -> Budget:
        """Start, query and end, with the number of rounds."""
        return Budget(self.n_start, self.n_query, self.n_end)

    @property
    def way_told(self) -> str:
        """What is not as preset and data set have it: "model lenet, batch 128"."""
        return ", ".join(f"{name} {value}" for name, value in self.way)

    @property
    def row(self) -> dict[str, Any]:
        """The run in a table."""
        return self._asdict() | {"way": self.way_told}

    @property
    def pool(self) -> int:
        """Images that can be labelled."""
        size = SIZES[self.dataset].pool
        return size if self.pool_share is None else count(self.pool_share, size, "pool_share")


class Options(NamedTuple):
    """What the commands have in common; None is the default of the table or figure."""

    datasets: tuple[str, ...] | None = None
    strategies: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    scale: str = "full"
    preset: str = "paper"
    model: str | None = None  # these four: None is that of the data set, of the preset or of the scale
    batch: int | None = None
    learning_rate: float | None = None
    mirror: bool | None = None
    best: bool = False  # also the best accuracy of all test epochs, which published numbers are
    pack: int = 0
    data_dir: str | None = None
    points: str | None = None  # "ends" or "all" of a sweep; None: as the scale has it
    map: str = "tsne"  # of Figure 3

    def all_seeds(self) -> tuple[int, ...]:
        """Those asked for, or the scale's."""
        return SCALES[self.scale].seeds if self.seeds is None else self.seeds

    def all_datasets(self, default: Sequence[str]) -> tuple[str, ...]:
        """Those asked for, or the default ones, or what stands in for them."""
        if self.datasets is not None:
            return self.datasets
        stand_in = SCALES[self.scale].stand_in
        return (stand_in,) if stand_in else tuple(default)

    def all_strategies(self, default: Sequence[str], *, sweep: bool = False) -> tuple[str, ...]:
        """Those asked for, or the default ones; at smoke the first few of a sweep."""
        if self.strategies is not None:
            return self.strategies
        return tuple(default)[: SCALES[self.scale].methods if sweep else None]

    def points_of(self, sweep: Sequence[str]) -> tuple[str, ...]:
        """The points of a sweep, or its ends."""
        ends = SCALES[self.scale].ends if self.points is None else self.points == "ends"
        return (sweep[0], sweep[-1]) if ends and len(sweep) > 1 else tuple(sweep)


WAY = ("model", "batch", "learning_rate", "mirror")  # options that become a run's way


def landing(dataset: str, n_start: str, n_query: str, n_end: str, most_rounds: int | None = None) -> Budget:
    """A budget that ends at n_end, or a few images before it, whatever the start: sweeps compare equal ends.

    As many queries as are nearest to what n_query asks for (at most as `most_rounds` leave room for), all of one size.
    """
    pool = SIZES[dataset].pool
    start, query, end = (
        count(text, pool, flag) for text, flag in ((n_start, "n_start"), (n_query, "n_query"), (n_end, "n_end"))
    )
    if start == end:
        return Budget(start, query, end)
    queries = max(1, round(Fraction(end - start, query)))
    queries = min(queries, (most_rounds or queries + 1) - 1)
    size = (end - start) // queries
    return Budget(start, size, start + queries * size)


def _runs(options: Options, dataset: str, budget: Budget, strategies: Sequence[str], **more: object) -> list[Run]:
    """A run for each strategy and seed."""
    one = Run(dataset, "", 0, *budget, 0, options.preset, eval_every=int(options.best), pack=options.pack)._replace(
        **more  # type: ignore[arg-type]
    )
    return [
        _trained(one._replace(strategy=name, seed=seed), options) for name in strategies for seed in options.all_seeds()
    ]


def trainer_of(run: Run) -> Trainer:
    """How it is trained."""
    strategy = strategies.build(run.strategy)
    return strategy.wrap(trainers.build(run.trainer or strategy.trainer, run.preset))


def of_pool(run: Run) -> bool:
    """Whether its epochs are passes over the whole pool, and not over the labelled images."""
    epoch = trainer_of(run).epoch
    return epoch(100, 10_000) != epoch(100, 1_000_000)


def _trained(run: Run, options: Options) -> Run:
    """The run with its epochs and its way, and with its trainer where the scale has options for that."""
    scale = SCALES[options.scale]
    small = scale.small_of(run.dataset)
    chosen = {name: value for name in WAY if (value := getattr(options, name)) is not None}
    run = run._replace(way=tuple({**(small.way if small else {}), **chosen}.items()))
    if scale.passes is not None and of_pool(run):
        run = run._replace(epochs=scale.passes)
    else:
        whole, epochs = data.TABLE[run.dataset].epochs, small.epochs if small else scale.epochs
        run = run._replace(epochs=epochs if isinstance(epochs, int) else int(whole * epochs))
    fitted = scale.trainers.get(strategies.build(run.strategy).trainer)
    return run if run.trainer or fitted is None else run._replace(trainer=fitted(run))


def nothing(options: Options) -> list[Run]:
    """Tables 1 and 6 are text."""
    del options
    return []


def full_data(options: Options) -> list[Run]:
    """Table 2: one round with all labels."""
    runs = []
    for dataset in options.all_datasets(("mnist", "cifar10", "cifar100", "gtsrb", "tiny_imagenet")):
        size = SIZES[dataset].pool
        budget = Budget(size, count(data.TABLE[dataset].n_query, size, "n_query"), size)
        runs += _runs(options, dataset, budget, ["random"])
    return runs


def grid(options: Options, datasets: Sequence[str] = tuple(DATASETS), methods: Sequence[str] = tuple(METHODS)) -> (
    list[Run]
):  # fmt: skip
    """Tables 3 and 4: the 19 methods on five data sets, each from start to end of its row; random is always in it."""
    scale, runs = SCALES[options.scale], []
    for dataset in options.all_datasets(datasets):
        info, pool = data.TABLE[dataset], SIZES[dataset].pool
        start, query, end = (count(text, pool, "n") for text in (info.n_start, info.n_query, info.n_end))
        if small := scale.small_of(dataset):
            end = count(small.n_end, pool, "n_end")
        else:
            query *= scale.queries
        if scale.rounds is not None:
            end = min(end, start + (scale.rounds - 1) * query)
        names = dict.fromkeys(("random", *options.all_strategies(methods)))
        runs += _runs(options, dataset, Budget(start, query, end), list(names))
    return runs


def table5(options: Options) -> list[Run]:
    """Of the grid, what API(SSLDiff2AugDirect) / API(SSLRandom) needs; CIFAR-100 too, which the paper leaves out."""
    return grid(options, methods=("ssl_random", "ssl_diff2aug_direct"))


def fig7(options: Options) -> list[Run]:
    """Of the grid, four data sets."""
    return grid(options, datasets=("mnist", "cifar10", "gtsrb", "tiny_imagenet"))


CASE = ("ssl_random", "ssl_consistency", "ssl_diff2aug_direct", "ssl_diff2aug_kmeans")  # Figures 2 and 3


def fig2(options: Options) -> list[Run]:
    """2 % labels at random, 1 % bought, the network trained again; the networks are kept."""
    runs = []
    for dataset in options.all_datasets(("mnist",)):
        budget = landing(dataset, "2%", "1%", "3%")
        runs += _runs(options, dataset, budget, options.all_strategies(CASE), save_weights=True)
    return runs


def fig3(options: Options) -> list[Run]:
    """Of Figure 2, the first seed."""
    return fig2(options._replace(seeds=options.all_seeds()[:1]))


# Figure 4, data set -> (starts, query, end). The paper names the ends, MNIST's 0.5 % and 2 %, and no query size;
# the sizes and the starts of CIFAR-10 are ours. A start at the end buys nothing.
STARTS = {
    "mnist": (("0.5%", "1%", "2%", "4%", "6%", "8%", "10%"), "1%", "10%"),
    "cifar10": (("1%", "5%", "10%", "15%", "20%", "25%", "30%"), "5%", "30%"),
}


def fig4(options: Options) -> list[Run]:
    """SSLDiff2AugDirect from several starts to one end."""
    runs = []
    for dataset in options.all_datasets(tuple(STARTS)):
        starts, query, end = STARTS.get(dataset, STARTS["cifar10"])
        for start in options.points_of(starts):
            budget = landing(dataset, start, query, end, SCALES[options.scale].rounds)
            runs += _runs(options, dataset, budget, options.all_strategies(("ssl_diff2aug_direct",)))
    return runs


SHARES = ("20%", "40%", "60%", "80%", "100%")  # Figure 5; the paper names 40 % only


def fig5(options: Options) -> list[Run]:
    """5,000 labelled images of CIFAR-10 (10 %), then two queries of 2,500, from shares of the pool."""
    runs = []
    for dataset in options.all_datasets(("cifar10",)):
        budget = landing(dataset, "10%", "5%", "20%")
        for share in options.points_of(SHARES):
            names = options.all_strategies(("ssl_random", "ssl_diff2aug_direct"))
            part = {} if share == "100%" else {"pool_share": share}
            runs += _runs(options, dataset, _within(budget, dataset, share), names, **part)
    return runs


def _within(budget: Budget, dataset: str, share: str) -> Budget:
    """The budget as it is, if the share of the pool has so many images."""
    pool = count(share, SIZES[dataset].pool, "pool_share")
    return budget if budget.n_end <= pool else budget._replace(n_end=budget.n_end - budget.n_query)


QUERIES = ("5%", "10%", "20%", "40%")  # Figures 6 and 8(b), from 10 % to 50 %; the paper gives no sizes


def _query_sizes(options: Options, methods: Sequence[str]) -> list[Run]:
    runs = []
    for dataset in options.all_datasets(("cifar10",)):
        for query in options.points_of(QUERIES):
            budget = landing(dataset, "10%", query, "50%", SCALES[options.scale].rounds)
            runs += _runs(options, dataset, budget, options.all_strategies(methods, sweep=True))
    return runs


def fig6(options: Options) -> list[Run]:
    """Semi-supervised methods, 10 % to 50 %, by the size of the queries."""
    return _query_sizes(options, CASE)


ROBUSTNESS = ("badge", "least_confidence", "core_gcn", "cluster_margin", "bald")  # Figure 8
STARTS_8 = ("1%", "2%", "5%", "10%", "20%")  # 8(a); 1 and 2 are in the authors' raw runs


def fig8a(options: Options) -> list[Run]:
    """Five supervised methods, queries of 5 % to 40 %, by the start."""
    runs = []
    for dataset in options.all_datasets(("cifar10",)):
        for start in options.points_of(STARTS_8):
            budget = landing(dataset, start, "5%", "40%", SCALES[options.scale].rounds)
            runs += _runs(options, dataset, budget, options.all_strategies(ROBUSTNESS, sweep=True))
    return runs


def fig8b(options: Options) -> list[Run]:
    """The same methods, 10 % to 50 %, by the size of the queries."""
    return _query_sizes(options, ROBUSTNESS)


def fig8(options: Options) -> list[Run]:
    """Both panels."""
    return [*fig8a(options), *fig8b(options)]


PLANS: dict[str, Callable[[Options], list[Run]]] = {
    "table1": nothing, "table2": full_data, "table3": grid, "table4": grid, "table5": table5, "table6": nothing,
    "fig2": fig2, "fig3": fig3, "fig4": fig4, "fig5": fig5, "fig6": fig6, "fig7": fig7, "fig8": fig8,
}  # fmt: skip
