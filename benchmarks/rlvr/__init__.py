"""Real GRPO and RLOO runs on tiny models, and what extrapolation is worth in them.

python -m benchmarks.rlvr.run modular --trainer grpo --learning-rate 5e-5 --seed 1 --out RUN
python -m benchmarks.rlvr.evaluate modular RUN/checkpoint-150 RUN/checkpoint-200
python -m benchmarks.rlvr.jumps RUN --at 150 --horizons 50 100 --methods autoregression
python -m benchmarks.rlvr.heading RUN
python -m benchmarks.rlvr.campaign
python -m benchmarks.rlvr.without_lora

tasks.py         four tasks: questions, right and wrong answers
bases.py         the base model of each: it answers rightly a quarter of the time
record.py        what a run leaves in its folder, and the callback that writes it
run.py           a run from base to checkpoints; goes on where it was interrupted
evaluate.py      held-out accuracy of adapters, with its standard error
jumps.py         the accuracy after a jump, beside the checkpoints it lies between
heading.py       how long a run keeps its heading, which is what there is to predict
without_lora.py  a jump in runs that train all weights
campaign/        many runs, with and without jumps: the evidence that steps are saved
"""
