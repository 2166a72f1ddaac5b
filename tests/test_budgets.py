"""How many labels each round has: counts and shares, in integers."""

import itertools
import random

import pytest

from jaxdal import settings
from jaxdal.budgets import Budget, budget, count
from jaxdal.errors import InputError


@pytest.mark.parametrize(
    ("text", "pool", "number"),
    [
        ("500", 1000, 500),
        (" 500 ", 1000, 500),
        (500, 1000, 500),
        ("10%", 60_000, 6_000),
        ("10 %", 60_000, 6_000),
        (" 2.5% ", 1000, 25),
        ("0.1%", 1000, 1),
        ("1e1%", 1000, 100),
        ("100%", 39_209, 39_209),
        ("1", 1, 1),
        # Rounded down, and exactly: in floating point 0.29 * 100 is less than 29, and 0.57 * 100 less than 57.
        ("10%", 39_209, 3_920),
        ("29%", 100, 29),
        ("57%", 100, 57),
        ("0.07%", 10_000, 7),
        ("33.3%", 1000, 333),
    ],
)
def test_counts_and_shares(text, pool, number):
    found = count(text, pool, "n_start")
    assert found == number
    assert type(found) is int


@pytest.mark.parametrize("text", ["", "%", "ten", "ten%", "nan", "nan%", "inf%", "1.5", "1e3", "10%%", "1/0%", "0x10"])
def test_what_is_no_number(text):
    with pytest.raises(InputError) as error:
        count(text, 1000, "n_query")
    assert str(error.value) == f"--n_query={text} is neither a count such as 500 nor a share such as 10%"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0", "--n_end=0 is 0 images of a pool of 1000: at least one is needed"),
        (0, "--n_end=0 is 0 images of a pool of 1000: at least one is needed"),
        ("0%", "--n_end=0% is 0 images of a pool of 1000: at least one is needed"),
        ("0.09%", "--n_end=0.09% is 0 images of a pool of 1000: at least one is needed"),
        ("-5", "--n_end=-5 is -5 images of a pool of 1000: at least one is needed"),
        ("-5%", "--n_end=-5% is -50 images of a pool of 1000: at least one is needed"),
        ("1001", "--n_end=1001 is 1001 images, more than the pool of 1000"),
        ("100.1%", "--n_end=100.1% is 1001 images, more than the pool of 1000"),
    ],
)
def test_what_does_not_fit_the_pool(text, told):
    with pytest.raises(InputError) as error:
        count(text, 1000, "n_end")
    assert str(error.value) == told


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ((20, 5, 10), "--n_start=20 (20 images) is beyond --n_end=10 (10 images)"),
        (("70%", "5%", "10%"), "--n_start=70% (700 images) is beyond --n_end=10% (100 images)"),
        ((20, 31, 50), "--n_query=31 (31 images) does not fit between --n_start=20 (20) and --n_end=50 (50)"),
        (("x", 5, 10), "--n_start=x is neither a count such as 500 nor a share such as 10%"),
        ((5, "x", 10), "--n_query=x is neither a count such as 500 nor a share such as 10%"),
        ((5, 5, "x"), "--n_end=x is neither a count such as 500 nor a share such as 10%"),
        ((0, 5, 10), "--n_start=0 is 0 images of a pool of 1000: at least one is needed"),
        ((5, 0, 10), "--n_query=0 is 0 images of a pool of 1000: at least one is needed"),
        ((5, 5, 1001), "--n_end=1001 is 1001 images, more than the pool of 1000"),
        ((5, 0, 5), "--n_query=0 is 0 images of a pool of 1000: at least one is needed"),  # in vain, but wrong
    ],
)
def test_what_does_not_fit_together(numbers, told):
    with pytest.raises(InputError) as error:
        budget(*numbers, 1000)
    assert str(error.value) == told


PUBLISHED = {  # of the paper: start, query and end in percent, images, rounds
    "mnist": ("2%", "2%", "20%", 60_000, 10),
    "fashion_mnist": ("2%", "2%", "20%", 60_000, 10),
    "cifar10": ("10%", "5%", "70%", 50_000, 13),
    "gtsrb": ("10%", "5%", "70%", 39_209, 13),
    "gtsrb:competition": ("10%", "5%", "70%", 26_640, 13),
    "tiny_imagenet": ("10%", "5%", "70%", 100_000, 13),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_budgets(name):
    *numbers, pool, rounds = PUBLISHED[name]
    found = budget(*numbers, pool)
    assert found.rounds == len(found.labels) == rounds
    if pool != 39_209:  # whose shares are no whole numbers
        assert found.labels[-1] == found.n_end


def test_the_paper_has_thirteen_rounds_for_every_pool():
    # Below 260 images the part that 5% loses by rounding down can add up to one query more.
    for pool in [*range(260, 3_000), *range(3_000, 110_000, 487)]:
        found = budget("10%", "5%", "70%", pool)
        assert found.rounds == 13, pool
        assert found.labels[-1] <= found.n_end, pool


def test_a_start_that_is_the_end_is_one_round():
    assert budget(50, 20, 50, 100).labels == [50]
    assert budget("100%", "1%", "100%", 100).labels == [100]
    assert budget(1, 1, 1, 1) == Budget(1, 1, 1)
    assert budget(1, 1, 1, 1).rounds == 1


def test_a_query_is_whole_or_not_bought():
    assert budget(10, 20, 30, 100).labels == [10, 30]
    assert budget(10, 20, 49, 100).labels == [10, 30]
    assert budget(10, 20, 50, 100).labels == [10, 30, 50]


def test_no_budget_goes_beyond_its_end():
    rng = random.Random(0)
    for _ in range(2_000):
        pool = rng.randint(1, 10 ** rng.randint(1, 6))
        start = rng.randint(1, pool)
        end = rng.randint(start, pool)
        query = rng.randint(1, max(end - start, 1))
        as_text = [f"{100 * number / pool:.17g}%" if rng.random() < 0.3 else number for number in (start, query, end)]
        try:
            found = budget(*as_text, pool)
        except InputError:
            assert as_text != [start, query, end]  # a share in floating point may fall just below its whole number
            continue
        labels = found.labels
        assert len(labels) == found.rounds
        assert labels[0] == found.n_start
        assert {after - before for before, after in itertools.pairwise(labels)} <= {found.n_query}
        assert labels[-1] <= found.n_end <= pool
        assert found.n_start == found.n_end or labels[-1] + found.n_query > found.n_end


@pytest.mark.parametrize("flag", ["n_start", "n_query", "n_end"])
def test_zero_is_not_taken_for_the_default(blobs, flag):
    with pytest.raises(InputError, match=f"--{flag}=0 is 0 images"):
        settings.resolve(blobs, blobs, "random", **{"n_start": 8, "n_query": 4, "n_end": 16, flag: 0})
