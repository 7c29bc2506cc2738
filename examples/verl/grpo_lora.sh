#!/usr/bin/env bash
# GRPO with LoRA in verl, and one line more: the callback. Its settings are the line after it.
#
# In verl's environment: `pip install .` in a checkout of nextrapolate. Start `nextrapolate-server` somewhere,
# and say where it is by NEXTRAPOLATE_URL and NEXTRAPOLATE_API_KEY; on this machine it is found without. Two
# GPUs; further overrides of verl's configuration are taken as arguments.
set -euo pipefail

python3 -m verl.trainer.main_ppo \
    algorithm.adv_estimator=grpo \
    data.train_files="$HOME/data/gsm8k/train.parquet" \
    data.val_files="$HOME/data/gsm8k/test.parquet" \
    data.train_batch_size=128 \
    data.max_prompt_length=512 \
    data.max_response_length=1024 \
    data.filter_overlong_prompts=True \
    actor_rollout_ref.model.path=Qwen/Qwen2.5-3B-Instruct \
    actor_rollout_ref.model.lora_rank=32 \
    actor_rollout_ref.model.lora_alpha=32 \
    actor_rollout_ref.model.target_modules=all-linear \
    actor_rollout_ref.actor.strategy=fsdp2 \
    actor_rollout_ref.actor.optim.lr=2e-5 \
    actor_rollout_ref.actor.ppo_mini_batch_size=128 \
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=8 \
    actor_rollout_ref.actor.use_kl_loss=False \
    +actor_rollout_ref.actor.checkpoint.save_lora_only=True \
    actor_rollout_ref.rollout.name=vllm \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.load_format=safetensors \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=16 \
    trainer.project_name=nextrapolate \
    trainer.experiment_name=grpo_lora \
    trainer.logger='[console]' \
    trainer.nnodes=1 \
    trainer.n_gpus_per_node=2 \
    trainer.save_freq=10 \
    trainer.test_freq=10 \
    trainer.total_training_steps=200 \
    trainer.checkpoint_callback_class=nextrapolate_trainer.verl.NExtCheckpointCallback \
    +nextrapolate.jump_at=40 +nextrapolate.jump_every=20 +nextrapolate.horizon_steps=100 \
    "$@"
