#!/usr/bin/env bash
# Extrapolates between two runs of verl: for FSDP1, and for runs that nobody wants to be changed from inside.
#
#     grpo_lora.sh trainer.checkpoint_callback_class=null trainer.experiment_name=plain
#     restart_from_adapter.sh checkpoints/nextrapolate/plain 100 50
#
# takes the adapters out of the checkpoints of a run without the callback, extrapolates from step 100 by 50 steps, and
# starts another run with what comes back. That one counts its steps from 0, in a folder of its own: in the old one verl
# would resume, and never look at the adapter. A run that has jumped by itself is refused.
set -euo pipefail

run=$1 until=$2 horizon_steps=$3
shift 3

# If the first run began from an adapter itself, edit the next line: verl does not save all of that one's
# configuration, so give it (--adapter-config .../adapter_config.json).
python3 -m nextrapolate_trainer.verl_export "$run" "$run/adapters"
nextrapolate extrapolate "$run/adapters" --until "$until" --horizon-steps "$horizon_steps" --out "$run/extrapolated"

exec "$(dirname "$0")/grpo_lora.sh" \
    trainer.checkpoint_callback_class=null \
    trainer.resume_mode=disable \
    trainer.default_local_dir="$run-from-$((until + horizon_steps))" \
    actor_rollout_ref.model.lora_adapter_path="$(realpath "$run/extrapolated")" \
    "$@"
