"""What every table and figure does: plan, run what is missing, draw up the report."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence

from experiments import options as flags
from experiments import reporting, runs
from experiments.plans import PLANS, Options, Run
from experiments.records import Records
from experiments.reporting import Report
from jaxdal.commands import begin

Render = Callable[[Options, list[Run], Records], Report]


def parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """The flags of a command that writes reports."""
    made = flags.parser(f"python -m experiments.{name}", description)
    made.add_argument("--norun", action="store_true", help="report on what is there")
    return made


@flags.told_of_bad_input
def main(
    name: str, description: str | None, render: Render, arguments: Sequence[str] | None = None,
    more: Callable[[argparse.ArgumentParser], object] | None = None,
) -> int:  # fmt: skip
    """Run the command of a table or figure; the exit code is 1 if a run failed: the report is written all the same.

    more: adds flags that only this command has.
    """
    if arguments is None:
        begin()
        arguments = sys.argv[1:]
    made = parser(name, description)
    if more:
        more(made)
    given = flags.parse(made, arguments)
    options = flags.options(given)
    plan = PLANS[name](options)
    if given.list:
        return runs.show(plan, given)
    failures = [] if given.norun or not plan else runs.bring(plan, given, [name])
    records = Records(given.results)
    report = render(options, plan, records)
    failed = runs.failed(runs.of_command(plan, records, given), given.results)
    told = [*reporting.gaps(plan, records), *(f"Failed: {one}." for one in failed)]
    report = report._replace(table=report.table._replace(notes=[*report.table.notes, *told]))
    command = shlex.join(["python", "-m", f"experiments.{name}", *arguments])
    stamp = reporting.stamp(options, plan, records)
    for path in reporting.write(name, report, stamp, command, given.results / "reports"):
        print(path)
    for one in failures:
        print(f"failed: {one}", file=sys.stderr)
    return 1 if failures else 0
