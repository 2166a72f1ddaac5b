"""`python -m jaxdal.main --dataset=mnist --strategy=badge`: flags to arguments of `run`, and nothing else."""

import shlex
import sys
from collections.abc import Sequence

from absl import app, flags, logging

from jaxdal import commands

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "dataset", "digits", "digits, mnist, cifar10, gtsrb... (the README has all), folder:PATH, npz:PATH or tfds:NAME."
)
flags.DEFINE_string("data_dir", None, "Where data sets are kept (default: $TFDS_DATA_DIR or ~/tensorflow_datasets).")
flags.DEFINE_integer("image_size", None, "Height and width to which images of folder: and tfds: are resized.")
flags.DEFINE_string("test_share", None, "Share of each class for testing if there is no test set (default: 20%).")
flags.DEFINE_bool("skip_broken", False, "Leave broken image files out, and list them, in place of stopping.")
flags.DEFINE_string(
    "strategy",
    "badge",
    "Which images to label next: a name, or a call such as 'name(option=1)'; several, with commas, train together.",
)
flags.DEFINE_string(
    "trainer", None, "supervised, mixmatch, consistency, fixmatch, waal, or a call (default: the strategy's)."
)
flags.DEFINE_string("model", None, "lenet, resnet18_thin or resnet18 (default: the data set's).")
flags.DEFINE_list(
    "plugins",
    [],
    "Modules of your own, or files NAME.py, that add rows to the tables of strategies, models and trainers.",
)
flags.DEFINE_string("preset", "paper", "The protocol: paper, as published, or clean.")
flags.DEFINE_string("seeds", "0", "Numbers with commas between them, or ranges such as 0-4; they are trained at once.")
flags.DEFINE_string("n_start", None, "Labels at the start: a count, or a share of the training set such as 10%.")
flags.DEFINE_string("n_query", None, "Labels bought per round, likewise.")
flags.DEFINE_string("n_end", None, "Labels at the end, likewise; a last query that would go beyond is not made.")
flags.DEFINE_integer("epochs", None, "Epochs per round.")
flags.DEFINE_integer("batch", None, "Images per training step; of own images, a smaller one lowers the learning rate.")
flags.DEFINE_float("learning_rate", None, "At first (default: 0.1, of digits 0.05, of own images by batch).")
flags.DEFINE_bool("mirror", None, "Mirror training images (default: the preset's; of own images, no).")
flags.DEFINE_integer("crop", None, "Pixels by which training images are shifted at most (default: the data set's).")
flags.DEFINE_list("milestones", None, "Shares of the epochs at which the learning rate falls to a tenth.")
flags.DEFINE_list("mean", None, "Per channel, of pixels in 0..1 (default: the data set's; of own images, measured).")
flags.DEFINE_list("std", None, "Likewise, the standard deviation.")
flags.DEFINE_integer("eval_every", 0, "Epochs between evaluations on the test set; 0: after the last epoch only.")
flags.DEFINE_string("precision", "auto", "Of convolutions: f32, bf16, or auto (bf16 for ResNets on accelerators).")
flags.DEFINE_integer("pack", 0, "Most runs trained at once on a device; 0: chosen by model.")
flags.DEFINE_integer("pool_bytes", None, "Of a device, for training images (default: half of it); larger pools stream.")
flags.DEFINE_string("pool_share", None, "Use a random share of the training images, such as 40%; budgets are of it.")
flags.DEFINE_integer("pool_seed", 0, "Which share that is; smaller shares of one seed are parts of larger ones.")
flags.DEFINE_bool("save_weights", False, "Keep the trained networks of every round.")
flags.DEFINE_float("checkpoint_seconds", 300.0, "Seconds between checkpoints inside a long round.")
flags.DEFINE_string("share_round_0", None, "A folder where strategies with the same training share their first round.")
flags.DEFINE_string("extend", None, "Workdir of the same experiment with a smaller n_end: its rounds are taken over.")
flags.DEFINE_bool("distributed", False, "Be one of several processes, on any number of hosts, which JAX finds.")
flags.DEFINE_integer("heartbeat", 100, "With --distributed: seconds of silence after which a process counts as dead.")
flags.DEFINE_string("workdir", None, "Where results go; the same command continues there (default: below runs/).")


def _fail(sentence: object) -> int:
    print(f"jaxdal: {sentence}", file=sys.stderr)
    return 2


def _numbers(flag: str) -> list[float] | None:
    """The value of a flag that is a list of numbers; None if it was not given."""
    from jaxdal.errors import InputError

    texts: list[str] | None = FLAGS[flag].value
    if texts is None:
        return None
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise InputError(f"--{flag}={','.join(texts)} are not numbers") from None


def main(argv: Sequence[str]) -> int:
    """Run the command; the exit code is 2 for bad input, diverged runs and too little memory, 130 after Ctrl-C."""
    if len(argv) > 1:
        return _fail(f"unexpected argument {argv[1]!r}: flags look like --dataset=digits")
    from jaxdal.errors import InputError, OutOfMemoryError

    if not FLAGS.distributed:
        try:
            return _run()
        except OutOfMemoryError as error:
            return _fail(error)
        except OSError as error:
            what = error.filename or "a file could not be written"
            return _fail(f"{what}: {error.strerror or error}; once that is mended, the same command goes on")
        except KeyboardInterrupt:
            print("jaxdal: stopped; start the same command again: it continues", file=sys.stderr)
            return 130  # 128 + SIGINT, as shells have it
    from jaxdal import cluster, hosts

    if not cluster.is_child():
        return cluster.supervise()
    try:
        with cluster.member(FLAGS.heartbeat):
            return _run(speaks=hosts.first())
    except InputError as error:
        return _fail(error)


def _load(names: Sequence[str]) -> None:
    """Import modules of one's own, of several processes in the first one first, which may tell what is wrong."""
    import jax

    from jaxdal import hosts, plugins

    hosts.meet(jax.devices())
    hosts.from_each(lambda: plugins.load(names))


def _run(speaks: bool = True) -> int:
    """Run the experiment. speaks: unless another process does."""
    from jaxdal import calls, report
    from jaxdal.errors import InputError
    from jaxdal.files import at_home
    from jaxdal.journal import diverged
    from jaxdal.loop import run_together

    try:
        seeds = calls.seeds(FLAGS.seeds)
        mean, std, milestones = (_numbers(flag) for flag in ("mean", "std", "milestones"))
        commands.cache_programs()
        if FLAGS.plugins or FLAGS.distributed:  # every process takes part, with what it was given
            _load(FLAGS.plugins)
        for flag in ("workdir", "extend", "share_round_0", "data_dir"):
            if FLAGS[flag].value == "":
                raise InputError(f"--{flag}= names no folder")
        strategies, above = calls.names(FLAGS.strategy), FLAGS.workdir
        one = len(strategies) == 1
        workdirs, starts = ([folder] if folder and one else folder for folder in (above, FLAGS.extend))
        results = run_together(
            FLAGS.dataset, strategies, workdirs=workdirs, extend=starts, data_dir=FLAGS.data_dir,
            image_size=FLAGS.image_size, test_share=FLAGS.test_share, skip_broken=FLAGS.skip_broken,
            save_weights=FLAGS.save_weights, share_round_0=FLAGS.share_round_0,
            checkpoint_seconds=FLAGS.checkpoint_seconds, pool_bytes=FLAGS.pool_bytes,
            pool_share=FLAGS.pool_share, pool_seed=FLAGS.pool_seed, trainer=FLAGS.trainer,
            model=FLAGS.model, preset=FLAGS.preset, seeds=seeds, n_start=FLAGS.n_start, n_query=FLAGS.n_query,
            n_end=FLAGS.n_end, epochs=FLAGS.epochs, batch=FLAGS.batch, learning_rate=FLAGS.learning_rate,
            eval_every=FLAGS.eval_every, precision=FLAGS.precision, pack=FLAGS.pack,
            mirror=FLAGS.mirror, crop=FLAGS.crop, mean=mean, std=std, milestones=milestones,
        )  # fmt: skip
    except InputError as error:
        return _fail(error) if speaks else 2
    for result in results if speaks else []:
        if len(results) == 1:
            report.print_table(result.header, result.groups)
        picture = result.workdir / "accuracy.png"
        report.plot(result.header, result.groups, picture)
        print(f"{result.workdir / 'journal.jsonl'}\n{picture}")
    if len(results) > 1 and speaks:
        told = shlex.join(["python", "-m", "jaxdal.main", *sys.argv[1:]])
        report.compare([result.workdir for result in results], None if above is None else at_home(above), told)
    stopped = []
    for result in results:
        of = f" of {result.header['config']['strategy']}" if len(results) > 1 else ""
        for seed, (round_, step) in diverged(result.groups).items():
            stopped.append(f"seed {seed}{of} in round {round_} at step {step}")
    if stopped:
        if not speaks:
            return 2
        others = "; the other runs are complete" if len(stopped) < len(seeds) * len(results) else ""
        return _fail(f"the loss was not finite: {', '.join(stopped)}{others}")
    return 0


def _parse(argv: Sequence[str]) -> list[str]:
    app.define_help_flags()
    try:
        rest = FLAGS(argv)
    except flags.Error as error:
        sys.exit(_fail(error))
    except SystemExit:  # help was asked for and given, which absl takes for a failure
        sys.exit(0)
    if FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.WARNING)  # at INFO, JAX reports every backend that is not there
    return rest


if __name__ == "__main__":
    commands.begin()
    app.run(main, flags_parser=_parse)
