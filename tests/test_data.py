"""Arrays, oracle, table and the data sets that need no download."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxdal import data
from jaxdal.data.table import measure
from jaxdal.errors import InputError
from jaxdal.types import Dataset


def arrays(n: int = 6, m: int = 4, shape: tuple[int, ...] = (5, 4, 3)) -> list[np.ndarray]:
    """Training and test arrays with classes 0, 1, 2."""
    rng = np.random.default_rng(0)
    x, test_x = (rng.integers(0, 256, (size, *shape), dtype=np.uint8) for size in (n, m))
    return [x, np.arange(n) % 3, test_x, np.arange(m) % 3]


def test_from_arrays_keeps_pixels_and_converts_labels() -> None:
    x, y, test_x, test_y = arrays()
    got = data.from_arrays(x, y.astype(">u2"), test_x, test_y, num_classes=5, mirror=True)
    assert got.train_x is x  # nothing is copied that already fits
    assert got.train_y.dtype == got.test_y.dtype == np.int32
    np.testing.assert_array_equal(got.train_y, y)
    assert (got.num_classes, got.mirror, got.class_names) == (5, True, ())


def test_grey_images_get_a_channel() -> None:
    got = data.from_arrays(*arrays(shape=(5, 4)))
    assert got.train_x.shape == (6, 5, 4, 1)
    assert got.test_x.shape == (4, 5, 4, 1)


def test_num_classes_stated_named_or_measured() -> None:
    four = arrays()
    assert data.from_arrays(*four).num_classes == 3
    assert data.from_arrays(*four, class_names=["a", "b", "c", "d"]).num_classes == 4
    assert data.from_arrays(*four, num_classes=7).num_classes == 7
    four[3][0] = 5  # a class that only the test set has
    assert data.from_arrays(*four).num_classes == 6


def changed(position: int, value: object) -> list[object]:
    four: list[object] = list(arrays())
    four[position] = value
    return four


X, Y, TEST_X, TEST_Y = arrays()
REFUSED = {
    "float images": (changed(0, X / 255), {}, "training images must be uint8 .* got float64: multiply by 255"),
    "float images of 0..255": (changed(0, X.astype(np.float32)), {}, "got float32: round and use .astype"),
    "normalised images": (changed(0, X / 128 - 1), {}, "got float64: scale what is -1 to .* here to 0..255, round"),
    "int images": (changed(2, TEST_X.astype(np.int32)), {}, "test images must be uint8 .* got int32: use .astype"),
    "int images beyond a byte": (
        changed(2, TEST_X.astype(np.uint16) + 256),
        {},
        "got uint16: scale what is 256 to .* here",
    ),
    "bool images": (changed(0, X > 9), {}, "got bool: multiply by 255"),
    "flat images": (changed(0, X.reshape(6, -1)), {}, r"must have the shape .* got \[6, 60\]"),
    "no training images": (changed(0, X[:0]), {}, "there are no training images"),
    "no test images": (changed(2, TEST_X[:0]), {}, "there are no test images"),
    "channels first": (changed(0, np.zeros((6, 3, 32, 32), np.uint8)), {}, "channels-first: use .transpose"),
    "two shapes": (changed(2, TEST_X[:, 1:]), {}, r"training images are \[5, 4, 3\] but test images are \[4, 4, 3\]"),
    "two channel counts": (changed(2, TEST_X[..., 0]), {}, r"test images are \[5, 4, 1\]"),
    "ragged images": (changed(0, [[1, 2], [3]]), {}, "cannot be read as one array"),
    "float labels": (changed(1, Y.astype(float)), {}, "training labels must be integers, got float64"),
    "bool labels": (changed(1, Y > 1), {}, "got bool"),
    "text labels": (changed(1, np.array(list("abcabc"))), {}, r"must be integers, got <U1: names, numbers = numpy.uni"),
    "unknown labels": (changed(1, np.full(6, -1)), {"num_classes": 3}, "found -1: every image needs its label"),
    "labels that are all unknown": (
        [X, Y * 0 - 1, TEST_X, TEST_Y * 0],
        {},
        "counted from 0, found -1: every image need",
    ),
    "an absurd label": (
        changed(3, TEST_Y + 10**9),
        {},
        r"the largest label is 100000000\d, of 10 images: number the c",
    ),
    "column labels": (changed(1, Y[:, None]), {}, r"one-dimensional, got the shape \[6, 1\]: use .ravel"),
    "one-hot shares": (changed(1, np.eye(3)[Y]), {}, "not one-hot rows"),
    "one-hot labels": (changed(1, np.eye(3, dtype=int)[Y]), {}, "not one-hot rows"),
    "too few labels": (changed(1, Y[1:]), {}, "there are 6 training images but 5 training labels"),
    "negative label": (changed(3, TEST_Y - 1), {}, r"test labels must lie in 0..2 .* found -1"),
    "label too large": (changed(1, Y), {"num_classes": 2}, r"training labels must lie in 0..1 .* found 2"),
    "one class": (changed(1, Y * 0), {"num_classes": 1}, "at least 2, got 1"),
    "fractional classes": (changed(1, Y), {"num_classes": 3.0}, "integer of at least 2, got 3.0"),
    "names for other classes": (changed(1, Y), {"num_classes": 3, "class_names": ["a"]}, "1 class names for 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arrays_get_one_sentence(case: str) -> None:
    four, options, message = REFUSED[case]
    with pytest.raises(InputError, match=message) as caught:
        data.from_arrays(*four, **options)
    assert "\n" not in str(caught.value)


def test_fingerprint_sees_every_part() -> None:
    base = data.from_arrays(*arrays(), num_classes=3)
    marks = {data.fingerprint(base), data.fingerprint(base._replace(num_classes=4))}
    for field in ("train_x", "train_y", "test_x", "test_y"):
        other = getattr(base, field).copy()
        other.flat[-1] += 1
        marks.add(data.fingerprint(base._replace(**{field: other})))
    marks.add(data.fingerprint(base._replace(train_x=base.train_x.reshape(6, 4, 5, 3))))
    assert len(marks) == 7
    assert data.fingerprint(data.from_arrays(*arrays(), num_classes=3)) == data.fingerprint(base)


# --- oracle ---


def oracle() -> tuple[data.Oracle, np.ndarray]:
    return data.Oracle(np.array([2, 0, 1, 1, 2], np.int32)), np.full(5, -1, np.int32)


def test_oracle_reveals_and_counts() -> None:
    seller, known = oracle()
    later = seller.reveal(known, np.array([3, 0]))
    np.testing.assert_array_equal(later, [2, -1, -1, 1, -1])
    np.testing.assert_array_equal(known, -1)
    assert later.dtype == np.int32
    assert seller.revealed == 2
    last = seller.reveal(jax.numpy.asarray(later), jax.numpy.array([1, 2, 4]))
    np.testing.assert_array_equal(last, [2, 0, 1, 1, 2])
    assert (seller.revealed, len(seller)) == (5, 5)
    untouched = seller.reveal(last, [])
    assert untouched is not last
    assert seller.revealed == 5


@pytest.mark.parametrize(
    ("picks", "message"),
    [
        ([1, 3, 1], "pick 1 occurs more than once"),
        ([5], "pick 5 is outside the pool of 5"),
        ([-1], "pick -1 is outside"),
        ([1, 2], "the label of pick 2 is already known"),
        ([1.0], "picks must be a list of pool indices, got float64"),
        ([True], "got bool"),
        ([[1]], "picks must be a list"),
        (1, "picks must be a list"),
    ],
)
def test_oracle_refuses_bad_picks(picks: object, message: str) -> None:
    seller, known = oracle()
    known = seller.reveal(known, [2])
    with pytest.raises(ValueError, match=message):
        seller.reveal(known, picks)
    assert seller.revealed == 1


@pytest.mark.parametrize("known", [np.full(4, -1), np.full(5, -1.0)])
def test_oracle_refuses_another_known(known: np.ndarray) -> None:
    with pytest.raises(ValueError, match="known must be 5 integers"):
        oracle()[0].reveal(known, [0])


def test_oracle_cannot_enter_a_traced_function() -> None:
    seller, known = oracle()
    assert jax.tree.leaves(seller) == [seller]  # an opaque leaf, not a container of labels
    with pytest.raises(TypeError, match="Oracle"):
        jax.jit(lambda o, k: k)(seller, known)
    with pytest.raises(ValueError, match=r"Non-hashable static arguments|unhashable"):
        jax.jit(lambda o, k: k, static_argnums=0)(seller, known)
    with pytest.raises(TypeError):
        jax.vmap(lambda o: o)(seller)


def test_oracle_keeps_labels_to_itself() -> None:
    labels = np.array([1, 0], np.int32)
    seller = data.Oracle(labels)
    labels[:] = 7  # the caller's array is not the oracle's
    np.testing.assert_array_equal(seller.reveal(np.array([-1, -1]), [0, 1]), [1, 0])
    assert not [name for name in vars(seller) if not name.startswith("_Oracle__")]
    assert repr(seller) == "Oracle(size=2, revealed=2)"


def test_split_hides_the_labels() -> None:
    whole = data.from_arrays(*arrays())
    pool_x, seller, (test_x, test_y) = data.split(whole)
    assert pool_x is whole.train_x
    np.testing.assert_array_equal(seller.reveal(np.full(6, -1), np.arange(6)), whole.train_y)
    np.testing.assert_array_equal(test_x, whole.test_x)
    np.testing.assert_array_equal(test_y, whole.test_y)


# --- digits, own files ---


def test_digits() -> None:
    digits = data.load("digits")
    assert digits.train_x.shape == (1438, 8, 8, 1)
    assert digits.test_x.shape == (359, 8, 8, 1)
    assert (digits.train_x.min(), digits.train_x.max()) == (0, 255)
    assert (digits.num_classes, digits.mirror) == (10, False)
    assert np.bincount(digits.train_y).min() > 120
    mean, std = measure(digits.train_x)
    assert mean == pytest.approx(data.TABLE["digits"].mean, abs=1e-4)
    assert std == pytest.approx(data.TABLE["digits"].std, abs=1e-4)
    assert data.fingerprint(digits) == data.fingerprint(data.load("digits"))


@pytest.mark.parametrize(
    "keys",
    [("train_images", "train_labels", "test_images", "test_labels"), ("x_train", "y_train", "x_test", "y_test")],
)
def test_npz_round_trip(tmp_path: Path, keys: tuple[str, ...]) -> None:
    np.savez(tmp_path / "own.npz", **dict(zip(keys, arrays(), strict=True)))
    got = data.load(f"npz:{tmp_path}/own.npz")
    assert data.fingerprint(got) == data.fingerprint(data.from_arrays(*arrays()))


def test_npz_class_names(tmp_path: Path) -> None:
    four = dict(zip(data.local.KEYS, arrays(), strict=True))
    np.savez(tmp_path / "own.npz", class_names=np.array(["a", "b", "c", "d"]), **four)
    got = data.load(f"npz:{tmp_path}/own.npz")
    assert (got.num_classes, got.class_names) == (4, ("a", "b", "c", "d"))


def npz_cases(folder: Path) -> dict[str, str]:
    """Write broken files; -> file name: what the sentence must say."""
    x, y, test_x, test_y = arrays()
    objects = np.array([{"a": 1}], dtype=object)
    np.savez(folder / "objects.npz", train_images=objects, train_labels=y, test_images=test_x, test_labels=test_y)
    np.savez(folder / "keys.npz", train_images=x, labels=y)
    np.savez(folder / "floats.npz", x_train=x / 255, y_train=y, x_test=test_x, y_test=test_y)
    np.save(folder / "one.npy", x)
    (folder / "pickle.npz").write_bytes(pickle.dumps([1, 2, 3]))
    (folder / "text.npz").write_text("hello\n" * 100)
    (folder / "empty.npz").write_bytes(b"")
    (folder / "cut.npz").write_bytes((folder / "keys.npz").read_bytes()[:200])
    return {
        "missing.npz": "there is no file",
        "": "there is no file",
        "objects.npz": "holds pickled Python objects, which are never read",
        "keys.npz": "must hold train_images, .* but it holds train_images, labels",
        "floats.npz": "training images must be uint8",
        "one.npy": "holds a single array",
        "pickle.npz": "pickled|cannot be read as an .npz file",
        "text.npz": "pickled|cannot be read as an .npz file",
        "empty.npz": "cannot be read as an .npz file",
        "cut.npz": "cannot be read as an .npz file",
    }


def test_bad_npz_gets_one_sentence(tmp_path: Path) -> None:
    for name, message in npz_cases(tmp_path).items():
        with pytest.raises(InputError, match=message) as caught:
            data.load(f"npz:{tmp_path}/{name}")
        assert "\n" not in str(caught.value), name


# --- the table ---


def test_a_damaged_npz_gets_one_sentence_or_is_read(tmp_path: Path) -> None:
    """Whatever byte is another one: zipfile, zlib and NumPy have errors of many kinds for them."""
    np.savez_compressed(tmp_path / "whole.npz", **dict(zip(data.local.KEYS, arrays(), strict=True)))
    whole, refused = (tmp_path / "whole.npz").read_bytes(), 0
    for place in range(0, len(whole), 7):
        (tmp_path / "one.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        try:
            data.load(f"npz:{tmp_path}/one.npz")
        except InputError:
            refused += 1
    assert refused > len(whole) / 7 / 2


def test_unknown_names_get_the_nearest_match() -> None:
    with pytest.raises(InputError, match=r"did you mean mnist\?"):
        data.load("mnits")
    with pytest.raises(InputError, match=r"did you mean cifar100\?"):
        data.load("CIFAR-100")
    with pytest.raises(InputError, match=r"did you mean gtsrb:competition\?"):
        data.load("GTSRB_competition")
    with pytest.raises(InputError, match=r"did you mean tiny_imagenet\?"):
        data.load("tiny-imagenet-200")
    with pytest.raises(InputError, match="unknown dataset 'npz:'"):
        data.load("npz:")
    with pytest.raises(InputError, match=r"there are .*, gtsrb:competition, .*, folder:PATH, npz:PATH, tfds:NAME"):
        data.check_name("qqqqqq")


@pytest.mark.parametrize("name", data.TABLE)
def test_rows_are_consistent(name: str) -> None:
    row = data.TABLE[name]
    data.check_name(name)
    assert callable(row.loader)
    assert len(row.mean) == len(row.std) == (1 if "mnist" in name or name == "digits" else 3)
    assert all(0 < value < 1 for value in (*row.mean, *row.std, *row.milestones))
    assert list(row.milestones) == sorted(row.milestones)
    start, query, end = (float(text.rstrip("%")) for text in (row.n_start, row.n_query, row.n_end))
    assert 0 < start <= end <= 100
    assert (end - start) % query == 0  # the last round ends exactly at the end
    assert row.model in ("lenet", "resnet18_thin")


def test_published_protocol() -> None:
    mnist, cifar10, gtsrb = data.TABLE["mnist"], data.TABLE["cifar10"], data.TABLE["gtsrb"]
    assert [round(share * mnist.epochs) for share in mnist.milestones] == [20, 40]
    assert [round(share * cifar10.epochs) for share in cifar10.milestones] == [80, 120]
    assert (mnist.mirror, mnist.published_flip) == (gtsrb.mirror, gtsrb.published_flip) == (False, True)
    same = data.TABLE["gtsrb:competition"]._replace(loader=None)
    assert gtsrb._replace(loader=None) == same  # another split, the same protocol
    for name in ("gtsrb", "tiny_imagenet"):
        for field in ("padding", "model", "batch", "epochs", "milestones", "n_start", "n_query", "n_end"):
            assert getattr(data.TABLE[name], field) == getattr(cifar10, field), (name, field)


def test_defaults_for_own_data() -> None:
    x, y, test_x, test_y = arrays(n=50, shape=(9, 7, 2))
    x[..., 1] = 51
    own = data.from_arrays(x, y, test_x, test_y, mirror=True)
    row = data.info("npz:somewhere", own)
    scaled = x.astype(np.float64) / 255
    assert row.mean == pytest.approx(scaled.mean((0, 1, 2)))
    assert row.std == pytest.approx((scaled[..., 0].std(), 1.0))  # a constant channel divides by one
    assert (row.model, row.padding, row.mirror, row.num_classes) == ("resnet18_thin", 4, True, 3)
    small = data.info("mine", data.from_arrays(*arrays(shape=(28, 28))))
    assert (small.model, small.padding, small.n_end) == ("lenet", 0, "70%")
    assert data.info("mnist", own) is data.TABLE["mnist"]


def test_test_images_do_not_change_the_measure() -> None:
    x, y, test_x, test_y = arrays()
    assert data.own(data.from_arrays(x, y, test_x, test_y)) == data.own(data.from_arrays(x, y, 255 - test_x, test_y))


def test_tfds_is_imported_only_when_needed(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **dict(zip(data.local.KEYS, arrays(), strict=True)))
    code = (
        "import sys, jaxdal.data as data\n"
        f"data.load('digits'); data.load({f'npz:{tmp_path}/own.npz'!r})\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('tensorflow', 'tensorflow_datasets')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def real(name: str) -> Dataset:
    """Real data that somebody has put at hand, or a skip."""
    folder = os.environ.get("JAXDAL_REAL_DATA", "")
    path = Path(folder) / f"{name}.npz"
    if not folder or not path.is_file():
        pytest.skip(f"JAXDAL_REAL_DATA does not name a folder with {name}.npz")
    return data.load(f"npz:{path}")


def test_real_mnist() -> None:
    mnist, row = real("mnist"), data.TABLE["mnist"]
    assert mnist.train_x.shape == (60000, 28, 28, 1)
    assert mnist.test_x.shape == (10000, 28, 28, 1)
    assert list(mnist.train_y[:10]) == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    mean, std = measure(mnist.train_x)
    assert mean == pytest.approx(row.mean, abs=1e-4)
    assert std == pytest.approx(row.std, abs=1e-4)
