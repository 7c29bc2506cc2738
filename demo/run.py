"""The demo: `python -m demo.run`. Three GRPO runs from one base and one seed, and a table of what came out.

Two run side by side, one core each. What they leave lies in demo/runs/, the table in demo/result.json.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from demo.plans import PLANS, Plan
from demo.server import COMMAND, Server, ServerFailedError, embedded_server
from demo.table import Measured, make_table

HERE = Path(__file__).parent
LANES = (("vanilla",), ("jump", "cycles"))
"""Runs of one lane follow each other."""


class RunFailedError(Exception):
    """A run ended before its last step."""


def follow(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a training process; what else it says goes to `log`.

    Raises:
        RunFailedError: the process failed; the message holds the end of its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("w") as errors,
        subprocess.Popen(  # noqa: S603 (our own command)
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        yield from map(json.loads, process.stdout)
    if process.returncode:
        raise RunFailedError(f"{' '.join(command)} failed; the end of {log}:\n{log.read_text()[-2000:]}")


class Demo:
    """The runs, their progress and their measurements."""

    def __init__(self, folder: Path, seed: int, shorten: int, held_out: int, console: Console) -> None:
        self._folder = folder
        self._options = [f"--seed={seed}", f"--shorten={shorten}", f"--held-out={held_out}"]
        self.plans = {plan.name: plan.shortened(shorten) for plan in PLANS}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
        )

    def run(self, server: Server) -> dict[str, list[Measured]]:
        """Train all runs, lane beside lane, and return their measurements by the name of the plan."""
        with self._progress, ThreadPoolExecutor(len(LANES)) as lanes:
            bars = {
                plan.name: self._progress.add_task(plan.title, total=plan.steps, start=False, status="")
                for plan in self.plans.values()
            }
            done = [lanes.submit(self._run_lane, lane, server, bars) for lane in LANES]
            return {name: rows for lane in done for name, rows in lane.result().items()}

    def _run_lane(
        self, lane: Sequence[str], server: Server, bars: Mapping[str, TaskID]
    ) -> dict[str, list[Measured]]:
        return {name: self._run_plan(name, server, bars[name]) for name in lane}

    def _run_plan(self, name: str, server: Server, bar: TaskID) -> list[Measured]:
        out = self._folder / name
        command = [sys.executable, "-m", "demo.train", name, f"--out={out}", *self._options]
        environment = os.environ | {
            "NEXTRAPOLATE_URL": server.url,
            "NEXTRAPOLATE_API_KEY": server.api_key,
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        rows: list[Measured] = []
        self._progress.start_task(bar)
        for event in follow(command, environment, out / "log.txt"):
            match event:
                case {"step": step}:
                    self._progress.update(bar, completed=step)
                case {"jumping": step}:
                    self._progress.update(bar, status=f"extrapolating from step {step}")
                case {"measured": row}:
                    rows.append(row)
                    self._progress.update(bar, status=f"sampled {row['accuracy']['sampled']:.3f}")
        self._progress.stop_task(bar)
        return rows


def as_json(
    plans: Iterable[Plan], runs: Mapping[str, Sequence[Measured]], seconds: float, reports: Iterable[Path]
) -> dict[str, Any]:
    """Return the content of result.json."""
    return {
        "plans": [asdict(plan) for plan in plans],
        "runs": runs,
        "seconds": round(seconds, 1),
        "reports": [str(path) for path in reports],
        "machine": {"cores": os.cpu_count(), "platform": platform.platform()},
        "versions": {
            name: version(name) for name in ("nextrapolate", "trl", "peft", "transformers", "torch")
        },
    }


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shorten", type=int, default=1, help="divide numbers of steps and cycles by this")
    parser.add_argument("--held-out", type=int, default=1600, help="number of held-out prompts")
    parser.add_argument("--folder", type=Path, default=HERE / "runs")
    parser.add_argument("--result", type=Path, default=HERE / "result.json")
    arguments = parser.parse_args()
    console = Console()
    begun = time.monotonic()
    shutil.rmtree(arguments.folder, ignore_errors=True)
    demo = Demo(arguments.folder, arguments.seed, arguments.shorten, arguments.held_out, console)
    console.print("Three GRPO runs, same base and seed: alone, with one jump, with jumps in cycles.")
    try:
        with embedded_server(arguments.folder / "server", workers=len(LANES)) as server:
            console.print(f"nextrapolate-server is ready on {server.url}")
            runs = demo.run(server)
    except (ServerFailedError, RunFailedError) as error:
        raise SystemExit(str(error)) from None
    reports = sorted(arguments.folder.glob("*/jump-*/report.json"), key=lambda path: path.stat().st_mtime)
    result = as_json(demo.plans.values(), runs, time.monotonic() - begun, reports)
    arguments.result.write_text(json.dumps(result, indent=2) + "\n")
    console.print(make_table(demo.plans.values(), runs))
    console.print(f"{result['seconds']:.0f} s in all. The same as JSON: {arguments.result}", soft_wrap=True)
    console.print(
        f"What each jump did, on what evidence: {arguments.folder}/*/jump-*/report.html", soft_wrap=True
    )
    console.print(f"All jobs, as pages: {COMMAND} --data-dir {arguments.folder}/server/data", soft_wrap=True)


if __name__ == "__main__":
    main()
