"""The command: one campaign a seed, one after the other."""

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from chaos import campaign, summary
from chaos.campaign import Plan
from chaos.deployment import Size
from chaos.faults import FAULTS


def main() -> int:
    """Run the campaigns; gives 1 where a promise was broken."""
    arguments = _arguments()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    console = Console(width=140, highlight=False)
    size = Size(arguments.workers, arguments.apis, arguments.lease, hatchery=not arguments.own_children)
    results = []
    with (folder / "log.jsonl").open("a") as log:
        for seed in range(arguments.seed, arguments.seed + arguments.seeds):
            plan = Plan(
                seed=seed,
                jobs=arguments.jobs,
                faults=arguments.faults,
                kinds=arguments.kinds,
                seconds=arguments.seconds,
                longest_queue=arguments.queue,
                size=size,
            )
            place = folder / f"seed-{seed}"
            place.mkdir()
            result = campaign.run(plan, place, console.print)
            results.append(result)
            log.writelines(f"{line}\n" for line in summary.lines(result))
            log.flush()
            for broken in result.outcome.broken:
                console.print(f"BROKEN, seed {seed}: {broken}", markup=False)
    for table in (summary.campaigns_table, summary.faults_table, summary.recoveries_table):
        console.print(table(results))
    console.print(f"log: {folder / 'log.jsonl'}")
    return int(any(result.outcome.broken for result in results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, one campaign each")
    parser.add_argument("--jobs", type=int, default=200, help="jobs of each campaign")
    parser.add_argument("--faults", type=int, default=45, help="faults of each campaign")
    parser.add_argument("--kinds", type=_kinds, default=tuple(FAULTS), help=f"of {','.join(FAULTS)}")
    parser.add_argument("--seconds", type=float, default=900, help="longest time of each campaign")
    parser.add_argument("--queue", type=int, default=Plan.longest_queue, help="most jobs that wait")
    parser.add_argument("--workers", type=int, default=Size.workers)
    parser.add_argument("--apis", type=int, default=Size.apis)
    parser.add_argument("--lease", type=float, default=Size.lease_seconds, help="seconds")
    parser.add_argument(
        "--own-children", action="store_true", help="let each child import torch itself, as in real life"
    )
    parser.add_argument("--folder", type=Path, help="empty; for the log and what broken promises left")
    return parser.parse_args()


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(text.split(","))
    unknown = sorted(set(kinds) - FAULTS.keys())
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}: choose of {', '.join(FAULTS)}")
    return kinds


if __name__ == "__main__":
    sys.exit(main())
