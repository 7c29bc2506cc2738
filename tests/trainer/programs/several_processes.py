"""Runs of several processes, one after the other: `accelerate launch ... several_processes.py RUN...`.

The launcher says whether by DDP, FSDP2 or DeepSpeed; each RUN is a `Run` as JSON. The first step after the
jump has a learning rate of 0: what it ends with is what it began with, unless something brings old weights
back. Each process leaves in OUT/rank-<n>.safetensors the adapter as each step began and ended, the one that
the forward passes of the step after the jump computed with, and the one at the end; and in OUT/rank-<n>.json
the jumps that it made.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import DistributedType, PartialState
from fixtures.grpo import tiny_parts
from fixtures.launched import Run
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.grpo_trainer import GRPOTrainer

from nextrapolate import Gate, NExtClient
from nextrapolate_trainer import zero
from nextrapolate_trainer.adapter import copied
from nextrapolate_trainer.peft_model import lora_parameters, read_adapter
from nextrapolate_trainer.sharded import whole
from nextrapolate_trainer.trl import NExtCallback
from nextrapolate_trainer.trl_internals import jit_managers

JUMP_AT = 4


class Spy(TrainerCallback):
    """Keeps the adapter around the jump."""

    def __init__(self) -> None:
        self.seen: dict[str, Tensor] = {}
        self.moments: dict[int, float] = {}
        self._listening: list[Any] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self._see(f"begun after {state.global_step}", event)
        if state.global_step >= JUMP_AT - 1:
            self.moments[state.global_step] = sum(
                moment(parameter, event["optimizer"]).abs().max().item()
                for parameter in lora_parameters(event["model"]).values()
            )
        if state.global_step == JUMP_AT:
            for group in event["optimizer"].param_groups:
                group["lr"] = 0.0  # the schedule sets it again after the step
            self._listen(event["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        self._see(f"ended {state.global_step}", event)
        while self._listening:
            self._listening.pop().remove()

    def _see(self, moment: str, event: dict[str, Any]) -> None:
        self.seen |= {f"{moment}: {name}": t for name, t in copied(read_adapter(event["model"])).items()}

    def _listen(self, model: nn.Module) -> None:
        """See the factors with which the model computes, gathered where they are sharded."""
        for name, module in model.named_modules():
            if name.endswith((".lora_A.default", ".lora_B.default")):
                key = f"computed: {name.removesuffix('.default')}.weight"
                self._listening.append(module.register_forward_hook(self._hook(key)))

    def _hook(self, key: str) -> Any:
        def keep(module: nn.Module, *_: Any) -> None:
            assert isinstance(module.weight, Tensor)
            self.seen |= copied({key: module.weight})

        return keep


def moment(parameter: nn.Parameter, optimizer: Optimizer) -> Tensor:
    """Return the mean of the gradients that Adam keeps, or this process' part of it."""
    if zero.is_partitioned(parameter):
        from deepspeed.utils import safe_get_full_optimizer_state

        mean: Tensor = safe_get_full_optimizer_state(parameter, "exp_avg")
        return mean
    return whole(optimizer.state.get(parameter, {}).get("exp_avg", torch.zeros(1)))


def on_the_cpu() -> dict[str, Any]:
    """Have Accelerate shard with gloo: it asks for an accelerator, though nothing it calls then needs one."""
    if "ACCELERATE_USE_DEEPSPEED" in os.environ:
        import deepspeed

        deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    PartialState(cpu=True, backend="gloo")
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return {"accelerator_config": {"use_configured_state": True}}


def fail_to_evaluate(trainer: GRPOTrainer) -> None:
    """Have the reward fail where it is no step's, in this process alone: the others wait to gather theirs."""
    model: Any = trainer.model
    reward: Any = trainer.reward_funcs[0]

    def fails(*args: Any, **columns: Any) -> Any:
        if not model.training:
            raise OSError("no judge answers")
        return reward(*args, **columns)

    trainer.reward_funcs = [fails]


class Preempted(TrainerCallback):
    """Sends each process its SIGTERM as the jump is due: the first one's is heard at once, others' later."""

    def __init__(self, trainer: GRPOTrainer) -> None:
        [self._manager] = jit_managers(trainer)
        self._manager.kill_wait = 0
        self._leads = trainer.accelerator.is_main_process

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step != JUMP_AT:
            return
        threading.Timer(0 if self._leads else 1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        while self._leads and not self._manager.is_checkpoint_requested:
            time.sleep(0.01)


def train(run: Run, options: dict[str, Any]) -> None:
    """Train, and leave what there was to see."""
    out = Path(run.out)
    parts = tiny_parts(
        out / "run",
        max_steps=run.steps,
        save_steps=1,
        per_device_train_batch_size=8,
        enable_jit_checkpoint=run.preempted,
        **options,
    )
    parts["peft_config"].use_dora = run.dora
    trainer = GRPOTrainer(**parts)
    trainer.remove_callback(PrinterCallback)
    spy = Spy()
    rank = trainer.accelerator.process_index
    # Scores differ between the processes: the first one's count.
    guards: dict[str, Any] = {
        "none": None,
        "accepts": lambda model: rank and -len(spy.seen),
        "fails in one": "evaluate",
    }
    if run.preempted:
        trainer.add_callback(Preempted(trainer))
    if run.guard == "fails in one" and rank == 1:
        fail_to_evaluate(trainer)
    plugin = NExtCallback(
        NExtClient(run.url, run.api_key),
        collect_every=2,
        jump_at=JUMP_AT,
        horizon_steps=2,
        method="weight-extrapolation",
        gate=Gate(min_backtest_cosine=-1),
        guard=guards[run.guard],
        optimizer="keep" if "ddp_backend" in options else "reset",
        timeout=run.timeout,
        finish="wsm",
    ).attach(trainer)
    trainer.add_callback(spy)
    trainer.train(resume_from_checkpoint=run.resumed_from)
    ended = copied(read_adapter(cast(PeftModel, trainer.model)))
    spy.seen |= {f"at the end: {name}": tensor for name, tensor in ended.items()}
    save_file(spy.seen, out / f"rank-{rank}.safetensors")
    summary = {
        "jumps": [jump.job for jump in plugin.jumps],
        "moments": spy.moments,
        "steps": trainer.state.global_step,
        "processes": trainer.accelerator.num_processes,
        "kind": trainer.accelerator.distributed_type.value,
    }
    (out / f"rank-{rank}.json").write_text(json.dumps(summary))


def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    shards = {"ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"} & os.environ.keys()
    options: dict[str, Any] = on_the_cpu() if shards else {"ddp_backend": "gloo"}
    options["bf16"] = os.environ["ACCELERATE_MIXED_PRECISION"] == "bf16"
    for run in sys.argv[1:]:
        train(Run(**json.loads(run)), options)


if __name__ == "__main__":
    main()
    # On a busy machine threads of gloo abort the process while it ends.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
