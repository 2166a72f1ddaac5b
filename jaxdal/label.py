"""Label a folder of images, some at a time: `python -m jaxdal.label photos --k=50` says which ones, best first.

Images that nobody has looked at lie in the folder itself. Whoever labels moves them into a folder per class below it,
with any file manager, and gives the command again. Where an image lies is its label: nothing else is kept. What is left
in `next` was skipped, and is asked again when no other image is left.
"""

import argparse
import csv
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxdal import commands, data, plugins, settings
from jaxdal.ask import ask
from jaxdal.data import folder
from jaxdal.data.images import Source
from jaxdal.data.moving import decode_once
from jaxdal.errors import InputError, OutOfMemoryError
from jaxdal.files import at_home, replacing

NEXT = "next"  # below the folder: images that were chosen with --move, and wait for a label
GUESSES = "guesses.csv"  # in the folder
OPTIONS = {"trainer": str, "model": str, "epochs": int, "batch": int, "learning_rate": float, "crop": int}  # of `ask`


class Shelf(NamedTuple):
    """What lies in a folder."""

    pool: list[Source]  # to learn from, or to label: then with the label -1
    tests: list[Source]
    classes: tuple[str, ...]


def look(root: Path) -> Shelf:
    """Sort a folder: images in it, and in `next`, have no label; those below other folders have the folder's.

    A folder `test` (or else `val`, ...) that holds folders of classes is for measuring accuracy. The pool is in the
    order of the files' own names, which stays when a file moves.

    Raises:
        InputError: there are not two classes, nothing is left to label, two files would have one place in `next`, or
            there are test images of another class.
    """
    if not root.is_dir():
        raise InputError(f"{root} {'is a file' if root.exists() else 'does not exist'}: give a folder of images")
    entries, below = _names(root)
    test, *others = [name for name in folder.TEST_FOLDERS if folder.holds_folders(root / name)] or [""]
    classes = [name for name in below if name not in (NEXT, test, *others)]
    if len(classes) < 2:
        there = f"there is {classes[0]} alone" if classes else "there is none"
        raise InputError(f"make a folder in {root} for each class, at least two, empty or not: {there}")
    files = [name for name in entries if name not in below]
    loose = [Source(name, f"{root}/{name}", -1) for name in files if folder.is_image(name)]
    seen = folder.Seen([], [name for name in files if not folder.is_image(name) and name != GUESSES], [], [])
    waiting = _below(root, NEXT, -1, seen)
    if twice := {f"{NEXT}/{one.name}" for one in loose} & {one.name for one in waiting}:
        raise InputError(f"{root / min(twice)} and {root / Path(min(twice)).name} have one name: rename one of them")
    files, folders = _names(root / test) if test else ([], [])
    if strange := sorted({*folders} - {*classes}):
        raise InputError(f"{root / test} holds classes that {root} lacks: {', '.join(strange)}")
    seen.loose.extend(f"{test}/{name}" for name in files if folder.is_image(name) and name not in folders)
    tests = _of_classes(root, f"{test}/", classes, seen) if test else []
    labelled = _of_classes(root, "", classes, seen)
    folder.tell(str(root), seen, others, test)
    if not loose and not waiting:
        raise InputError(f"nothing is left to label: no image is in {root} itself")
    pool = sorted([*loose, *waiting, *labelled], key=lambda one: (Path(one.name).name, one.name))
    return Shelf(pool, tests, tuple(classes))


def _names(root: Path) -> tuple[list[str], list[str]]:
    """What lies in a folder, sorted, and which of that are folders."""
    entries = sorted(entry.name for entry in root.iterdir() if not entry.name.startswith("."))
    return entries, [name for name in entries if (root / name).is_dir()]


def _of_classes(root: Path, prefix: str, classes: Sequence[str], seen: folder.Seen) -> list[Source]:
    """The images of classes whose folders have a prefix before their name."""
    return [one for label, name in enumerate(classes) for one in _below(root, prefix + name, label, seen)]


def _below(root: Path, name: str, label: int, seen: folder.Seen) -> list[Source]:
    """All images below a folder, which need not be there; names of other files are appended."""
    found = folder.images_below(f"{root}/{name}", f"{name}/", seen.others) if (root / name).is_dir() else ()
    return [Source(file, f"{root}/{file}", label) for file, _ in found]


class Chosen(NamedTuple):
    """What is to be labelled next."""

    files: list[Path]  # best first
    accuracy: float | None  # on test images, 0 to 1; None without any, or where nothing was trained


def choose(
    root: Path, k: int, strategy: str = "badge", *, move: bool = False, image_size: int | None = None,
    skip_broken: bool = False, seed: int = 0, **options: Any,
) -> Chosen:  # fmt: skip
    """Choose at most k images without a label, and write what the network thinks of all of them to `guesses.csv`.

    Images are drawn at random until two classes have some: before, there is nothing to learn. Those that wait in `next`
    are chosen when no others are left. move: put those that are chosen there. Other options are those of `ask`; what a
    strategy remembers is new in every call.

    Raises:
        InputError: the folder is not as `look` wants it, an image is broken, an option does not fit.
        OutOfMemoryError: a device ran out of memory.
        OSError: a file cannot be written or moved.
    """
    if k < 1:
        raise InputError(f"--k={k} is less than 1")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed={seed} is not in 0..{2**32 - 1}")
    data.check_options("folder:", data.Options(image_size))
    settings.check_names(strategy, options.get("trainer"), options.get("model"))  # before images are labelled in vain
    shelf = look(root)
    sources = shelf.pool + shelf.tests
    x, good = decode_once(sources, image_size, skip_broken=skip_broken, root=root)
    if not good.all():
        broken = ", ".join(one.name for one, well in zip(sources, good, strict=True) if not well)
        print(f"{root}: left out as broken: {broken}", file=sys.stderr, flush=True)
    pool = list(itertools.compress(shelf.pool, good))
    labels = np.asarray([one.label for one in itertools.compress(sources, good)])
    known, unknown = labels[: len(pool)], np.flatnonzero(labels[: len(pool)] < 0)
    if not unknown.size:
        raise InputError(f"nothing is left to label: every image in {root} itself is broken")
    waiting = {place for place in unknown.tolist() if pool[place].name.startswith(f"{NEXT}/")}
    if 0 < len(waiting) < len(unknown):
        print(f"{root}: {len(waiting):,} images still wait in {NEXT}: others come first", file=sys.stderr, flush=True)
    asked = min(k + len(waiting), len(unknown))  # that k others are among them, if there are so many
    probs = accuracy = None
    if len(set(known[known >= 0])) < 2:
        told = "images of two classes at least have to be labelled before anything can be learnt: these are random"
        print(f"{root}: {told}", file=sys.stderr, flush=True)
        picks = np.random.default_rng(seed).permutation(unknown)[:asked]
    else:
        test = (x[len(pool) :], labels[len(pool) :]) if len(labels) > len(pool) else None
        answer = ask(
            x[: len(pool)], known, asked, strategy, num_classes=len(shelf.classes), test=test, seed=seed, **options
        )
        picks, probs, accuracy = answer.picks, answer.probs, answer.accuracy
    names = [one.name for one in pool]
    first = sorted(picks.tolist(), key=waiting.__contains__)[:k]  # else what nobody can tell would be asked every time
    still = [place for place in first if (root / names[place]).exists()]  # others were moved during training
    for place in still if move else ():
        names[place] = _moved(root, names[place])
    ranks = {place: rank for rank, place in enumerate(still, 1)}
    rows = [
        [names[place], ranks.get(place, ""), *_guess(shelf.classes, None if probs is None else probs[place])]
        for place in [*ranks, *(place for place in unknown.tolist() if place not in ranks)]
    ]
    with replacing(root / GUESSES) as partial, partial.open("w", newline="", errors="surrogateescape") as file:
        csv.writer(file, lineterminator="\n").writerows([["file", "next", "guess", "probability"], *rows])
    return Chosen([root / names[place] for place in still], accuracy)


def _moved(root: Path, name: str) -> str:
    """Put an image into `next`, unless it is there, or by now another one of this name: -> its new name."""
    source, place = root / name, root / NEXT / name
    if name.startswith(f"{NEXT}/") or os.path.lexists(place):
        return name
    place.parent.mkdir(exist_ok=True)
    if source.is_symlink() and not source.readlink().is_absolute():  # it would lead elsewhere from there
        place.symlink_to(os.path.relpath(source.resolve(), place.parent.resolve()))
        source.unlink()
    else:
        source.rename(place)
    return f"{NEXT}/{name}"


def _guess(classes: Sequence[str], probs: np.ndarray | None) -> tuple[str, str]:
    """The likeliest class and its probability, as text."""
    return ("", "") if probs is None else (classes[int(probs.argmax())], f"{probs.max():.4f}")


def main(arguments: Sequence[str]) -> int:
    """Print the images to be labelled next, a path each line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxdal.label",
        description="Say which images to label next. Those in FOLDER itself have no label yet; those in FOLDER/CLASS/ "
        f"have. What a network thinks of all that have none is written to FOLDER/{GUESSES}.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of images")
    parser.add_argument("--k", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--strategy", default="badge", help="by which they are chosen (default: badge)")
    parser.add_argument("--move", action="store_true", help=f"put them into FOLDER/{NEXT}/")
    parser.add_argument("--image_size", type=int, help="height and width to which images are resized")
    parser.add_argument("--skip_broken", action="store_true", help="leave broken files out, in place of stopping")
    parser.add_argument("--mirror", action="store_true", help="train on mirrored images, too")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers (default: 0)")
    for name, kind in OPTIONS.items():
        parser.add_argument(f"--{name}", type=kind, help="as in python -m jaxdal.main")
    parser.add_argument("--plugins", default="", help="modules of your own, with commas between them")
    given = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
    root, modules = at_home(given.pop("folder")), given.pop("plugins")
    try:
        commands.cache_programs()
        plugins.load(filter(None, modules.split(",")))
        chosen = choose(root, **given)
    except (InputError, OutOfMemoryError) as error:
        print(f"jaxdal: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"jaxdal: {error.filename or root}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it
    accuracy = "" if chosen.accuracy is None else f"accuracy on test images {chosen.accuracy:.2%}; "
    print(f"{root}: {accuracy}guesses are in {root / GUESSES}; to be labelled next:", file=sys.stderr, flush=True)
    print(*chosen.files, sep="\n")
    return 0


if __name__ == "__main__":
    commands.begin()
    sys.exit(main(sys.argv[1:]))
