"""One GRPO run of the demo, in a process of its own: `python -m demo.train cycles --out demo/runs/cycles`.

Says what it does in JSON lines on standard output: {"step": 12} after every step, {"jumping": 150} while it
waits for a jump, {"measured": {...}} for a row of the table. The service is the one that NEXTRAPOLATE_URL and
NEXTRAPOLATE_API_KEY name.
"""

import argparse
import logging
import sys
from pathlib import Path
from typing import TextIO

import torch
from transformers import PrinterCallback

from demo.make_base import BASE
from demo.plans import PLANS, Plan
from demo.task import ADDITION, HELD_OUT
from demo.trainer import grpo_trainer
from demo.watch import Watch
from nextrapolate import NExtClient
from nextrapolate_trainer.trl import NExtCallback


def train(plan: Plan, seed: int, held_out: int, out: Path, events: TextIO) -> None:
    """Train by plan; leaves the adapters and reports of the jumps in `out`."""
    trainer = grpo_trainer(ADDITION, BASE, out, max_steps=plan.steps, seed=seed)
    trainer.remove_callback(PrinterCallback)
    client = plugin = None
    if plan.jumps is not None:
        client = NExtClient()
        plugin = NExtCallback(client, name=f"demo {plan.name}", **plan.jumps).attach(trainer)
    trainer.add_callback(Watch(trainer, plan, plugin, held_out, events))
    trainer.train()
    if client is not None and plugin is not None:
        for jump in plugin.jumps:
            client.download(jump.job, out / f"jump-{jump.step}")


def main() -> None:
    """Train one of the demo's runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", choices=[plan.name for plan in PLANS])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shorten", type=int, default=1)
    parser.add_argument("--held-out", type=int, default=HELD_OUT)
    arguments = parser.parse_args()
    plan = next(plan for plan in PLANS if plan.name == arguments.plan).shortened(arguments.shorten)
    # Libraries print what they like: standard output is for the events alone.
    events, sys.stdout = sys.stdout, sys.stderr
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("nextrapolate").setLevel(logging.INFO)
    # Two runs share two cores; models this small gain nothing from a second thread.
    torch.set_num_threads(1)
    train(plan, arguments.seed, arguments.held_out, arguments.out, events)


if __name__ == "__main__":
    main()
