"""A share of the pool: nested, in order, the test set untouched; and a run on one."""

import jax
import numpy as np
import pytest

import jaxdal
from jaxdal import data
from jaxdal.errors import InputError


def kept(dataset: jaxdal.Dataset, share: str, seed: int) -> list[int]:
    """Which images of a pool whose images are all different are left."""
    names = {image.tobytes(): place for place, image in enumerate(dataset.train_x)}
    return [names[image.tobytes()] for image in data.share_of_pool(dataset, share, seed).train_x]


def test_shares_of_a_seed_are_nested_and_in_the_order_of_the_pool(blobs):
    rows = {share: kept(blobs, f"{share}%", 7) for share in (20, 40, 60, 80, 100)}
    assert {share: len(one) for share, one in rows.items()} == {20: 40, 40: 80, 60: 120, 80: 160, 100: 200}
    for smaller, larger in [(20, 40), (40, 60), (60, 80), (80, 100)]:
        assert set(rows[smaller]) < set(rows[larger])
    assert all(one == sorted(one) for one in rows.values())
    assert rows[100] == list(range(200))
    assert kept(blobs, "40%", 8) != rows[40]
    assert np.ptp(rows[20]) > 100, "drawn from all of the pool"


def test_labels_and_files_go_with_their_images(blobs):
    named = blobs._replace(files=tuple(f"{place}.png" for place in range(200)))
    part = data.share_of_pool(named, "12.4%", 3)
    rows = kept(blobs, "12.4%", 3)
    assert len(rows) == 24
    np.testing.assert_array_equal(part.train_y, blobs.train_y[rows])
    assert part.files == tuple(f"{row}.png" for row in rows)
    assert part.test_x is blobs.test_x
    assert part.num_classes == 4


@pytest.mark.parametrize("share", ["40", "0%", "101%", "-5%", "0.1%", "x%", "1/0%", "", "nan%"])
def test_what_is_no_share_is_refused(blobs, share):
    with pytest.raises(InputError, match="is not a share such as 40% of a pool of 200"):
        data.share_of_pool(blobs, share, 0)


def test_a_seed_out_of_range_is_refused(blobs):
    with pytest.raises(InputError, match="pool_seed=-1"):
        data.share_of_pool(blobs, "40%", -1)


def test_a_seed_of_no_share_is_refused(blobs, tmp_path):
    with pytest.raises(InputError, match="--pool_seed=5 says which share of the pool, and --pool_share is not given"):
        jaxdal.run(blobs, "random", workdir=tmp_path, pool_seed=5, n_start=20, n_query=10, n_end=20)


def test_budgets_of_a_run_are_of_its_share(blobs, tmp_path):
    options = {"n_start": "25%", "n_query": 10, "n_end": "25%", "epochs": 1, "batch": 10, "quiet": True}
    result = jaxdal.run(
        blobs, "random", workdir=tmp_path, pool_share="40%", pool_seed=5, devices=jax.devices()[:1], **options
    )
    assert result.header["config"]["pool"] == 80
    assert result.header["config"]["n_start"] == 20
    assert (result.header["pool_share"], result.header["pool_seed"]) == ("40%", 5)
    with pytest.raises(InputError, match="fingerprint"):
        jaxdal.run(blobs, "random", workdir=tmp_path, pool_share="40%", pool_seed=6, **options)
