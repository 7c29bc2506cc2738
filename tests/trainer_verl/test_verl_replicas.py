"""Replicas of a sharded model, a node each in life: an adapter is in all of them, and exported once."""

from functools import partial
from pathlib import Path

import pytest
import ray
import torch
from fixtures.verl_run import MakeConfig, adapters, make_workers, same
from safetensors.torch import load_file

from nextrapolate_trainer.verl_export import export
from nextrapolate_trainer.verl_ranks import on_every_rank, read_adapter, write_adapter

pytestmark = pytest.mark.integration


def test_every_replica_takes_the_adapter(make_config: MakeConfig, ray_cluster: None, tmp_path: Path) -> None:
    workers = make_workers(make_config("actor_rollout_ref.actor.fsdp_config.fsdp_size=1"))
    own, others = on_every_rank(workers, read_adapter)
    assert others == {}, "one of them is enough"
    generator = torch.Generator().manual_seed(0)
    adapter = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in own.items()}
    on_every_rank(workers, partial(write_adapter, adapter=ray.put(adapter), reset=frozenset()))
    assert [same(read, adapter) for read in adapters(workers)] == [True, True]
    workers.save_checkpoint(str(tmp_path / "run" / "global_step_1" / "actor"), None, 1)
    [folder] = export(tmp_path / "run", tmp_path / "out")
    assert same(load_file(folder / "adapter_model.safetensors"), adapter)
