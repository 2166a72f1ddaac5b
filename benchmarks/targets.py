"""The marks that this project aims at, and where in the results of a benchmark each figure stands."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from benchmarks.timing import Row

OWN = "jaxdal"  # how rows that are not a rival's begin
LARGE = "10,000 picks of 1,281,167 x 512"
RESNET = r"Training step: resnet18_thin\b"


class Target(NamedTuple):
    """What is aimed at, and where its figure stands: in the column of a row, or as a ratio of two rows of one table."""

    what: str
    least: float | None = None
    most: float | None = None
    name: str = ""  # of the file, without .json
    title: str = ""  # of the table, an expression
    ours: str = rf"{OWN}\b"  # the row's `what`, an expression; of several, the best
    rival: str | None = None
    column: str = "images/s"
    where: Callable[[Row], bool] = lambda row: True
    command: str = ""  # an expression, where the title does not tell what was run
    device: str = ""  # likewise
    total: bool = False  # the sum of the rows counts, not the best of them

    @property
    def mark(self) -> str:
        """The target in words."""
        times = "x" if self.rival else f" {UNITS[self.column]}"
        return f"<= {self.most:,g}{times}" if self.most is not None else f">= {self.least:,g}{times}"

    def met(self, value: float) -> bool:
        """Is it reached?"""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)


UNITS = {"images/s": "images/s", "s": "s", "seconds": "s", "ms/step": "ms", "selection %": "%", "compile": "s"}


def packed(row: Row) -> bool:
    """Are these several runs, at the batch that the targets are for?"""
    return row["batch"] == 256 and ("torch" in row["what"] or row["runs"] > 1)


def alone(row: Row) -> bool:
    """Is this one run, at that batch?"""
    return row["batch"] == 256 and row["runs"] == 1


def square(width: int, row: Row) -> bool:
    """Is this the clustering that has a target?"""
    return row["rows"] == 50_000 and row["width"] == width


def share(name: str, most: float) -> Target:
    """Scoring and selection as a share of the packed training of a round: of the first, which is the shortest."""
    command = rf"--dataset=(synthetic|cifar10|npz:\S*cifar10\S*) .*--strategy=\S*\b{name}\b.*--epochs=150\b"
    return Target(
        f"share of scoring + selection in a round, {name}", most=most, name="rounds", title=rf"Rounds: \S+ {name};",
        ours="", column="selection %", where=lambda row: row["round"] == 0 and row["runs"] > 1, command=command,
    )  # fmt: skip


TARGETS = (
    Target("thin ResNet-18, batch 256, packed", 240_000, None, "train_step", RESNET, where=packed),
    Target("... the next mark", 500_000, None, "train_step", RESNET, where=packed),
    Target("... against the best PyTorch", 2.3, None, "train_step", RESNET, rival="torch, bf16", where=packed),
    Target("... as commonly written", 8, None, "train_step", RESNET, rival="torch, as", where=packed),
    Target("... behind a DataLoader", 18, None, "train_step", RESNET, rival="torch, behind", where=packed),
    Target("one run alone against the best PyTorch", 1.1, None, "train_step", RESNET, rival="torch, bf16", where=alone),
    Target("... the next mark", 1.5, None, "train_step", RESNET, rival="torch, bf16", where=alone),
    Target(
        "MixMatch step against a supervised one, thin ResNet-18", None, 2.2, "train_ssl_step",
        "MixMatch step: resnet18_thin", "jaxdal, mixmatch", "jaxdal, supervised", "ms/step", where=alone,
    ),
    *(share(name, 4) for name in ("margin", "badge", "coreset", "bald")),
    *(share(name, 20) for name in ("kmeans", "uncertain_gcn", "core_gcn", "cluster_margin")),
    *(
        Target(f"{name}, 10,000 picks of 1.28 M x 512", None, most, f"select_{name}", LARGE, column="s")
        for name, most in {"badge": 10, "coreset": 10, "kmeans": 60}.items()
    ),
    *(
        Target(
            f"cluster_margin, 50,000 x {width}", None, most, "select_cluster_margin", "Cluster-Margin, first query",
            column="s", where=partial(square, width),
        )
        for width, most in {128: 5, 512: 15}.items()
    ),
    Target(
        "compilation after the first round", most=0, name="rounds", title="Rounds:", ours="", column="compile",
        where=lambda row: row["round"] > 0, total=True,
    ),
    Target(
        "default command, cold start on a CPU", None, 60, "rounds", "jaxdal.main", "", column="seconds",
        where=lambda row: row["start"] == "cold", device=r"\(cpu\)",
    ),
    Target(
        "default command, warm start", None, 10, "rounds", "jaxdal.main", "", column="seconds",
        where=lambda row: row["start"] == "warm",
    ),
)  # fmt: skip
