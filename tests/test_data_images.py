"""Image files to pixels: formats, modes, rotation, sizes, channels, order."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, load, picture, save
from PIL import Image

from jaxdal.data import images
from jaxdal.data.images import Source, read_image

pytestmark = pytest.mark.usefixtures("kept")


def test_every_format_and_mode(tmp_path: Path) -> None:
    colour, grey = picture(1), picture(2, (6, 5))
    alpha = np.full((6, 5), 255, np.uint8)
    alpha[0] = 0
    lucid = np.dstack([colour, alpha])
    white = np.where(alpha[..., None] == 0, 255, colour)
    np.testing.assert_array_equal(read_image(encoded(colour), None), colour)
    np.testing.assert_array_equal(read_image(encoded(colour, "PPM"), None), colour)
    np.testing.assert_array_equal(read_image(encoded(grey, "PPM"), None), grey)
    np.testing.assert_array_equal(read_image(encoded(colour, "WEBP", lossless=True), None), colour)
    np.testing.assert_array_equal(read_image(encoded(lucid), None), white)
    np.testing.assert_array_equal(
        read_image(encoded(np.dstack([grey, alpha])), None), np.where(alpha == 0, 255, grey), err_msg="grey and alpha"
    )
    np.testing.assert_array_equal(read_image(encoded(grey > 99), None), np.where(grey > 99, 255, 0), err_msg="one bit")
    deep = grey.astype(np.uint16) * 256 + 77
    np.testing.assert_array_equal(read_image(encoded(deep), None), grey, err_msg="16 bits")
    smooth = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    for mode in ("RGB", "CMYK"):
        Image.fromarray(smooth).convert(mode).save(tmp_path / "x.jpg", quality=95)
        np.testing.assert_allclose(read_image(str(tmp_path / "x.jpg"), None), smooth, atol=6)


def test_palettes_with_and_without_transparency() -> None:
    indexed = Image.fromarray(np.arange(30, dtype=np.uint8).reshape(6, 5) % 3)
    indexed.putpalette([255, 0, 0, 0, 255, 0, 9, 9, 9])
    buffer = io.BytesIO()
    indexed.save(buffer, "PNG")
    colours = np.asarray([(255, 0, 0), (0, 255, 0), (9, 9, 9)], np.uint8)[np.asarray(indexed)]
    np.testing.assert_array_equal(read_image(buffer.getvalue(), None), colours)
    indexed.save(buffer := io.BytesIO(), "PNG", transparency=b"\xff\x00\xff")
    colours[np.asarray(indexed) == 1] = 255
    np.testing.assert_array_equal(read_image(buffer.getvalue(), None), colours)


def test_rotation_of_cameras_is_undone_and_broken_notes_do_no_harm() -> None:
    upright = picture(3)
    notes = Image.Exif()
    notes[274] = 6  # the camera was held upright: turn by 90 degrees
    turned = np.ascontiguousarray(np.rot90(upright))
    np.testing.assert_array_equal(read_image(encoded(turned, exif=notes), None), upright)
    np.testing.assert_array_equal(read_image(encoded(upright, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), None), upright)


def test_resizing_averages_what_it_joins() -> None:
    blocks = np.kron(picture(4, (4, 4)), np.ones((16, 32), np.uint8))
    got = read_image(encoded(blocks), 4)
    assert got.shape == (4, 4)
    expected = Image.fromarray(blocks).resize((4, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(got, np.asarray(expected))
    stripes = np.zeros((64, 64), np.uint8)
    stripes[::2] = 254
    np.testing.assert_allclose(read_image(encoded(stripes), 8), 127, atol=8)  # a picked pixel would be 0 or 254
    large = np.kron(picture(5, (8, 8, 3)) // 2 + 60, np.ones((64, 64, 1), np.uint8))
    whole = np.asarray(Image.fromarray(large).resize((16, 16), Image.Resampling.BILINEAR), float)
    fast = read_image(encoded(large, "JPEG", quality=95), 16).astype(float)  # decoded at an eighth of its size
    assert np.abs(fast - whole).mean() < 12


def test_channels_are_those_that_some_image_needs(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(2):
            save(tmp_path / "grey" / name / f"{number}.png", picture(number, (6, 5)))
    assert load(tmp_path / "grey").train_x.shape == (2, 6, 5, 1)
    shutil.copytree(tmp_path / "grey", tmp_path / "mixed")
    save(tmp_path / "mixed" / "b" / "2.png", picture(7))
    got = load(tmp_path / "mixed")
    whole = np.concatenate([got.train_x, got.test_x])
    assert whole.shape == (5, 6, 5, 3)
    assert sum(bool((image == image[..., :1]).all()) for image in whole) == 4


def test_more_images_than_one_task_takes_keep_their_order(tmp_path: Path) -> None:
    many = [Source(f"{seed}", encoded(picture(seed, (2, 2))), 0) for seed in range(3 * images.CHUNK + 5)]
    many[70] = Source("70", b"broken", 0)
    x, good = images.decode(many, None, skip_broken=True, title="many")
    assert good.tolist() == [seed != 70 for seed in range(len(many))]
    np.testing.assert_array_equal(x[..., 0], [picture(seed, (2, 2)) for seed in range(len(many)) if seed != 70])
