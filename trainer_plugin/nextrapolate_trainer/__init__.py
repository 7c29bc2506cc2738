"""The trainer plugin: a running RLVR job posts its LoRA checkpoints, and jumps ahead inside the run.

    from nextrapolate import NExtClient
    from nextrapolate_trainer.trl import NExtCallback

    trainer = GRPOTrainer(..., peft_config=LoraConfig(...))
    NExtCallback(NExtClient(), jump_at=150, horizon_steps=50).attach(trainer)
    trainer.train()

Checkpoints travel in the background. At the jump the run pauses, the service extrapolates, the adapter is
checked and swapped in, and training goes on from there. Whatever goes wrong is logged, and training goes on
from its own weights.

    trl.py            TRL's callback: says when, and lets nothing that fails reach the run
    trl_run.py        a TRL run: swaps the adapter, resets what the old policy left behind
    trl_evaluation.py the trainer's own evaluation as the guard's score
    trl_internals.py  the private names of TRL that this takes
    verl.py           verl's checkpoint callback: says when, and lets nothing that fails reach the run
    verl_run.py       a verl run: swaps the adapter, saves the checkpoint of a jump again
    verl_ranks.py     what each of verl's workers does with its model
    settings.py       what both trainers are told: defaults and bounds
    verl_settings.py  what verl's configuration says, and which runs cannot be served
    verl_export.py    PEFT adapters out of verl's checkpoints, to extrapolate between two runs
    peft_model.py     reads the adapter out of a PEFT model, and writes one into it
    sharded.py        whole tensors of those that FSDP2 shards, and back
    zero.py           the same for DeepSpeed's ZeRO
    guard.py          scores the model before and after a jump: the best adapter stays
    ranks.py          the processes of a run: the first decides, all do the same
    jumper.py         knows no trainer: collects, asks the service, hands over checked adapters
    asked_jobs.py     the jobs of a jump, cancelled where nobody waits for them any more
    series.py         the run's series at the service, continued or branched off after a resume
    state.py          what a resumed run has to know, a file in each checkpoint
    bounded.py        waiting with an end
    fail_open.py      what goes wrong is logged, and the run goes on
    uploads.py        the background thread that posts
    adapter.py        what an adapter is, and what has to hold for one that came back
    schedule.py       after which steps a checkpoint is collected and a jump made; RL-Extra's cycle
    summary.py        what a jump did to the run, for logs and metrics
    errors.py         what can go wrong

Beside the run, logits.py extrapolates the logits of two checkpoints while a model generates.
"""
