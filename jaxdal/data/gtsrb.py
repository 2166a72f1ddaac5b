"""The German Traffic Sign Recognition Benchmark from its official archives (Stallkamp et al. 2012), at 32x32.

The whole frame is scaled, without a crop to the sign, as in the published runs. Both sets are sorted by file name, the
pool therefore by class.
"""

import csv
import io
import re
import zipfile
from pathlib import Path

from jaxdal.data.archives import Listing, Split, check_lists, decode, list_files, read_files
from jaxdal.errors import InputError

SIZE = 32
TRAIN, TEST, TEST_LABELS = "GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images", "GT-final_test.csv"
ONLINE_TRAIN, ONLINE_TEST = "GTSRB/Training", "GTSRB/Online-Test-sort"
SIGNS = (
    "Speed limit (20km/h)", "Speed limit (30km/h)", "Speed limit (50km/h)", "Speed limit (60km/h)",
    "Speed limit (70km/h)", "Speed limit (80km/h)", "End of speed limit (80km/h)", "Speed limit (100km/h)",
    "Speed limit (120km/h)", "No passing", "No passing for vehicles over 3.5 metric tons",
    "Right-of-way at the next intersection", "Priority road", "Yield", "Stop", "No vehicles",
    "Vehicles over 3.5 metric tons prohibited", "No entry", "General caution", "Dangerous curve to the left",
    "Dangerous curve to the right", "Double curve", "Bumpy road", "Slippery road", "Road narrows on the right",
    "Road work", "Traffic signals", "Pedestrians", "Children crossing", "Bicycles crossing", "Beware of ice/snow",
    "Wild animals crossing", "End of all speed and passing limits", "Turn right ahead", "Turn left ahead",
    "Ahead only", "Go straight or right", "Go straight or left", "Keep right", "Keep left", "Roundabout mandatory",
    "End of no passing", "End of no passing by vehicles over 3.5 metric tons",
)  # fmt: skip


def read(paths: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    """The benchmark itself, 39,209 / 12,630 images, from three archives: training, test, labels of the test."""
    train, test, labels = paths
    return _decode(class_folders(train, TRAIN)), _decode(labelled_files(test, TEST, labels)), SIGNS


def read_competition(paths: list[Path]) -> tuple[Split, Split, tuple[str, ...]]:
    """The online competition that preceded it, 26,640 / 12,569 images, from two archives.

    Together they are the training set of the benchmark. The published runs of arXiv 2212.03088 used this split: all
    their accuracies are multiples of 1/12,569.
    """
    train, test = paths
    # That the second archive has lists in its class folders is not documented: they are compared where they are.
    return _decode(class_folders(train, ONLINE_TRAIN)), _decode(class_folders(test, ONLINE_TEST, lists=False)), SIGNS


def class_folders(path: Path, root: str, lists: bool = True) -> Listing:
    """Images of the folders 00000 to 00042, of which each has its list GT-xxxxx.csv.

    Raises InputError when a class, an image, a row or (with `lists`) a list is missing, or a list names another class.
    """
    files = list_files(path, root)
    names = [name for name in files if re.fullmatch(r"\d{5}/[^/]+\.ppm", name)]
    labels = [int(name[:5]) for name in names]
    if missing := sorted(set(range(len(SIGNS))) ^ set(labels)):
        raise InputError(f"{path} must have images in the folders 00000 to {len(SIGNS) - 1:05d}: see {missing[0]:05d}")
    tables = [f"{label:05d}/GT-{label:05d}.csv" for label in range(len(SIGNS))]
    if lists and (absent := set(tables) - set(files)):
        raise InputError(f"{path} has no {min(absent)} in {root}: it is not complete")
    tables = sorted(set(tables) & set(files))
    for table, content in zip(tables, read_files(path, root, tables), strict=True):
        folder = table[:5]
        rows = _rows(f"{path}: {table}", content)
        check_lists(path, {f"{folder}/{name}" for name in rows}, {name for name in names if name.startswith(folder)})
        if set(rows.values()) != {int(folder)}:
            raise InputError(f"{path}: {table} lists images of other classes")
    return Listing(path, root, names, labels)


def labelled_files(path: Path, root: str, table: Path) -> Listing:
    """Images of one folder whose labels stand in a list of their own, a .csv file, zipped or not.

    Raises InputError when an image or a row is missing.
    """
    names = [name for name in list_files(path, root) if re.fullmatch(r"[^/]+\.ppm", name)]
    if table.suffix == ".csv":
        content = table.read_bytes()
    else:
        with zipfile.ZipFile(table) as archive:
            content = archive.read(TEST_LABELS)
    rows = _rows(str(table), content)
    check_lists(path, set(rows), set(names))
    return Listing(path, root, names, [rows[name] for name in names])


def _rows(where: str, content: bytes) -> dict[str, int]:
    """File name -> class, from the bytes of an official list."""
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode()), delimiter=";"))
        labels = {row["Filename"]: int(row["ClassId"]) for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is not a list with the columns Filename and ClassId") from error
    if len(labels) != len(rows):
        raise InputError(f"{where} names an image twice")
    if wrong := set(labels.values()) - set(range(len(SIGNS))):
        raise InputError(f"{where} names class {min(wrong)}, which is not in 0..{len(SIGNS) - 1}")
    return labels


def _decode(listing: Listing) -> Split:
    return decode(listing, SIZE, "PPM", resize=True)
