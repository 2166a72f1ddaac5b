"""All tables and figures: the runs of all of them first, then one report after another.

python -m experiments.all --scale=smoke      # 2 CPU cores, minutes: does everything work?
python -m experiments.all --norun --results=DIR
"""

import importlib
import sys
from collections.abc import Sequence

from experiments import command, runs
from experiments import options as flags
from experiments.plans import PLANS
from jaxdal.commands import begin


@flags.told_of_bad_input
def main(arguments: Sequence[str]) -> int:
    """Run every command with the same flags; the exit code is that of the worst."""
    given = flags.parse(command.parser("all", __doc__), arguments)
    plan = flags.planned(given, list(PLANS))
    if given.list:
        return runs.show(plan, given)
    failures = [] if given.norun else runs.bring(plan, given, ["all"])  # once: a launcher gets all jobs together
    codes = [int(bool(failures))]
    for name in PLANS:
        module = importlib.import_module(f"experiments.{name}")
        codes.append(command.main(name, module.__doc__, module.render, [*arguments, "--norun"]))
    for told in failures:
        print(f"failed: {told}", file=sys.stderr)
    return max(codes)


if __name__ == "__main__":
    begin()
    sys.exit(main(sys.argv[1:]))
