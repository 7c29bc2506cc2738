"""What is measured, and the commands that measure it: `python -m benchmarks.NAME --help`.

    demo.py         the demo's own result
    rlvr/           real runs, and what jumps are worth in them
    prediction.py   how well each method predicts a checkpoint that is known
    hindsight.py    the same of `auto`, beside the best published setting in hindsight
    logits.py       what extrapolating logits is worth, in place of weights
    optimizer.py    what becomes of Adam's moments at a jump
    extraction.py   what extraction costs, beside the reference and the least a machine could take
    predictor.py    what training NExt's predictor costs, beside the reference's loop
    memory.py       what a job's memory peaks at, beside one checkpoint
    plugin.py       what the plugin costs a run
    pages.py        how soon the report and the pages are there
    service.py      what the service costs beside the work itself, in four parts:
    stages.py         where the time of a job goes
    submits.py        how long callers wait for a job to be accepted
    uploads.py        what an upload costs
    latency.py        what a job costs beside its numerics

None of these measures anything by itself:

    models.py       shapes of models, synthetic runs in them, and checkpoints as the numerics read them
    servers.py      servers that a benchmark starts for itself
    written.py      results, written into docs/benchmarks.md
"""
