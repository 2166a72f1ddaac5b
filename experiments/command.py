"""What every table and figure does: plan, run what is missing, draw up the report."""

import shlex
import sys
from collections.abc import Callable, Sequence

from experiments import options as flags
from experiments import reporting
from experiments.plans import PLANS, Options, Run
from experiments.records import Records
from experiments.reporting import Report
from experiments.runs import bring

Render = Callable[[Options, list[Run], Records], Report]


def main(name: str, description: str | None, render: Render, arguments: Sequence[str] | None = None) -> int:
    """Run the command of a table or figure; the exit code is 1 if a run failed: the report is written all the same."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = flags.parser(f"python -m experiments.{name}", description)
    parser.add_argument("--norun", action="store_true", help="report on what is there")
    given = parser.parse_args(arguments)
    options = flags.options(given)
    plan = PLANS[name](options)
    failures = [] if given.norun or not plan else bring(plan, given, [name])
    records = Records(given.results)
    report = render(options, plan, records)
    told = reporting.gaps(plan, records)
    report = report._replace(table=report.table._replace(notes=[*report.table.notes, *told]))
    command = shlex.join(["python", "-m", f"experiments.{name}", *arguments])
    stamp = reporting.stamp(options, plan, records)
    for path in reporting.write(name, report, stamp, command, given.results / "reports"):
        print(path)
    for one in failures:
        print(f"failed: {one}", file=sys.stderr)
    return 1 if failures else 0
