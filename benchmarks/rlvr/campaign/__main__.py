"""Make the runs, then tell what they show.

    python -m benchmarks.rlvr.campaign [--only NAME...] [--lanes N] [--write]

Names of runs may hold wildcards: the first ones are made first. `--lanes 0` makes no run, and tells what
those show that are there. With --write tables go into docs/benchmarks.md and figures into docs/images;
what each run measured lies in benchmarks/rlvr/results as JSON.
"""

import argparse
import json
from fnmatch import fnmatch
from pathlib import Path

from demo.server import embedded_server
from demo.task import HELD_OUT
from rich.console import Console

from benchmarks.rlvr.bases import base_of
from benchmarks.rlvr.campaign import figures, results
from benchmarks.rlvr.campaign.compare import summary
from benchmarks.rlvr.campaign.lanes import Place, make_all
from benchmarks.rlvr.campaign.plan import Planned, campaign
from benchmarks.rlvr.campaign.results import Results
from benchmarks.rlvr.campaign.sweep import Sweep
from benchmarks.rlvr.campaign.tables import SECTIONS, SWEPT
from benchmarks.rlvr.tasks import TASKS
from benchmarks.written import add_write_option, write_section

RUNS = Path(__file__).parents[1] / "runs"


def chosen(names: list[str]) -> list[Planned]:
    """Return the runs that the names stand for, each once, in the order of the names.

    Raises:
        SystemExit: a name stands for none.
    """
    found: dict[str, Planned] = {}
    for name in names:
        matching = {run.name: run for run in campaign() if fnmatch(run.name, name)}
        if not matching:
            raise SystemExit(f"no run is called {name}; they are called like {campaign()[0].name}")
        found |= {run: planned for run, planned in matching.items() if run not in found}
    return list(found.values())


def main() -> None:
    """Make runs, and tell what they show."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rlvr.campaign",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="names of runs")
    parser.add_argument("--lanes", type=int, default=1, help="runs made at the same time; 0 makes none")
    parser.add_argument("--folder", type=Path, default=RUNS, help="where the runs lie")
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="where their results lie")
    parser.add_argument("--held-out", type=int, default=HELD_OUT, help="number of held-out questions")
    add_write_option(parser)
    arguments = parser.parse_args()
    runs, console = chosen(arguments.only), Console()
    failures: dict[str, str] = {}
    arguments.results.mkdir(parents=True, exist_ok=True)
    sweep = Sweep(arguments.results / "sweep.json")
    if arguments.lanes:
        for task in dict.fromkeys(run.settings.task for run in runs):
            base_of(TASKS[task])  # before lanes begin, each of which would train it
        with embedded_server(arguments.folder / "server", workers=arguments.lanes) as server:
            place = Place(arguments.folder, server, arguments.held_out)
            failures = make_all(runs, place, arguments.lanes, console)
    results.keep(campaign(), arguments.folder, arguments.results)
    if arguments.lanes:
        sweep.complete(arguments.folder, console, arguments.held_out)
    found = Results.read(arguments.results)
    (arguments.results / "summary.json").write_text(json.dumps(summary(found, campaign())) + "\n")
    sections = {name: table(found) for name, table in SECTIONS.items()}
    sections |= {name: table(found, sweep.rows) for name, table in SWEPT.items()}
    for name, table in sections.items():
        console.print(f"\n{name}\n\n{table}", soft_wrap=True)
        if arguments.write:
            write_section(f"rlvr-{name}", table)
    if arguments.write:
        figures.draw(found, sweep.rows)
    if failures:
        raise SystemExit("\n".join(f"{name}: {why}" for name, why in failures.items()))


if __name__ == "__main__":
    main()
