"""The evidence that steps are saved: real runs with and without jumps, their tables and their figures.

    python -m benchmarks.rlvr.campaign                      # everything: hours on one core
    python -m benchmarks.rlvr.campaign --lanes 2 --only '*-s0'
    python -m benchmarks.rlvr.campaign --lanes 0 --write     # no run: the tables and figures alone

One embedded server answers all runs, through the real plugin. A run that is finished is not repeated; one
that was interrupted goes on from its last checkpoint. What the runs measured is kept in results/ as JSON.

    variants.py   the ways to train that are compared: vanilla, one jump, cycles of jumps, with a guard
    plan.py       which runs, the most telling ones first
    one_run.py    one of them, from the base model or from the 150th step of another
    lanes.py      all of them, in one process a lane; what is under way, on the terminal
    sweep.py      the adapter after a jump as it is, by method and alpha
    results.py    what the runs measured: curves, steps to an accuracy, means over seeds
    compare.py    runs beside those without jumps
    tables/       Markdown
    figures.py    SVG, from the Vega-Lite specifications in charts/
"""
