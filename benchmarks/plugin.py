"""What the plugin costs a run: collecting checkpoints, and the pause of a jump.

    python -m benchmarks.plugin [collecting] [pause] [--steps 250] [--pairs 5] [--write]

Collecting: the demo's GRPO run with the plugin, which collects every 10 steps and never jumps, beside the
same run without it, one after the other in one process, in turns the one and the other first. Wall time is
what people wait; CPU time of the training process, its upload thread included, is what the plugin adds to it,
and moves less with what else the machine does. "Copied" is what the training loop itself waited for, by the
plugin's own account. The service and its worker run beside it.

Pause: the same run in RL-Extra's cycles, 20 steps and a jump of 60; seconds that the training loop waited for
each jump, by part, as the plugin logs them: median and worst.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

import torch
from demo.make_base import BASE
from demo.server import embedded_server
from demo.task import ADDITION
from demo.trainer import grpo_trainer
from transformers import PrinterCallback

from benchmarks.written import add_write_option, markdown_table, write_section
from nextrapolate import NExtClient
from nextrapolate_trainer.schedule import rl_extra
from nextrapolate_trainer.summary import JumpSummary
from nextrapolate_trainer.trl import NExtCallback

NEVER = 10**6
"""A step that no run comes to."""


@dataclass(frozen=True)
class Cost:
    """Seconds of a run."""

    wall: float
    cpu: float
    copying: float
    """In the training loop, by the plugin's own account."""


def train(client: NExtClient | None, steps: int, out: Path) -> Cost:
    """Make a run that collects but does not jump, or without a client a run without the plugin."""
    trainer = grpo_trainer(ADDITION, BASE, out, max_steps=steps, seed=0)
    trainer.remove_callback(PrinterCallback)
    if client is not None:
        NExtCallback(client, jump_at=NEVER, name="collecting").attach(trainer)
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    copying = sum(entry.get("next/collect_seconds", 0.0) for entry in trainer.state.log_history)
    return Cost(wall, cpu, copying)


def collecting(client: NExtClient, options: argparse.Namespace, out: Path) -> str:
    """Return a table: a row a pair, and what the means say."""
    steps = options.steps
    train(None, min(steps, 10), out)  # the first run of a process pays for what is loaded when first used
    rows, losses = [], []
    for pair in range(options.pairs):
        off_first = pair % 2 == 0
        costs = {on: train(client if on else None, steps, out) for on in (not off_first, off_first)}
        off, on = costs[False], costs[True]
        losses.append((on.wall / off.wall - 1, on.cpu / off.cpu - 1, on.copying / off.wall))
        seconds = (f"{cost:.1f}" for cost in (off.wall, on.wall, off.cpu, on.cpu))
        rows.append((f"{pair + 1}", *seconds, *(f"{loss:+.2%}" for loss in losses[-1])))
        print(*rows[-1], sep=" | ", flush=True)
    columns = ("pair", "wall off", "wall on", "CPU off", "CPU on", "wall lost", "CPU lost", "copied")
    wall, cpu, copied = map(_with_error, zip(*losses, strict=True))
    means = f"Mean over pairs: {wall} of wall time, {cpu} of CPU time; copied {copied}."
    return f"{markdown_table(columns, rows)}\n\n{means}"


def pauses(client: NExtClient, options: argparse.Namespace, out: Path) -> str:
    """Return a table: a row a method, seconds as median and worst of its jumps."""
    rows = []
    for method in options.methods:
        trainer = grpo_trainer(ADDITION, BASE, out, max_steps=options.steps, seed=0)
        trainer.remove_callback(PrinterCallback)
        plugin = NExtCallback(client, method=method, name=method, **rl_extra(20, 60)).attach(trainer)
        trainer.train()
        rows.append((method, f"{len(plugin.jumps)}", *_parts(plugin.jumps)))
    return markdown_table(("method", "jumps", "pause", "uploads", "job", "download", "swap"), rows)


def _parts(jumps: Sequence[JumpSummary]) -> list[str]:
    columns = [[jump.seconds for jump in jumps]]
    columns += [[jump.parts[part] for jump in jumps] for part in ("uploads", "job", "download", "swap")]
    return [f"{median(seconds):.2f} ({max(seconds):.2f})" if seconds else "" for seconds in columns]


def _with_error(shares: Sequence[float]) -> str:
    error = stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else float("nan")
    return f"{mean(shares):+.2%} ± {error:.2%}"


PARTS = {"collecting": collecting, "pause": pauses}


def main() -> None:
    """Print the tables that are asked for, both where none is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="collecting, pause")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["auto", "autoregression"])
    add_write_option(parser)
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose of {', '.join(PARTS)}")
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded_server(Path(folder) / "server", workers=1) as server,
        NExtClient(server.url, server.api_key) as client,
    ):
        for name in options.parts or PARTS:
            table = PARTS[name](client, options, Path(folder) / "run")
            print(f"\n{name}\n\n{table}", flush=True)
            if options.write:
                write_section(name, table)


if __name__ == "__main__":
    main()
