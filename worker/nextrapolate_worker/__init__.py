"""The worker: takes one job at a time off the queue and runs it in a child process.

    app.py       the Celery app and its one task, which takes a job id
    attempt.py   one attempt at a job: claim, heartbeat, commit
    wakeups.py   the message that names a job
    nursery.py   child processes, one always warm
    lease.py     the right to commit, kept alive by beats
    messages.py  what worker and child say to each other
    settings.py  how a worker runs

    child.py     the child's main; leash.py, so that it does not outlive its worker
    pipeline.py  the seven stages, files in, artifacts out
    loading.py   the first two of them: from a job's sources to a trajectory; resolving.py finds the files
    tasks/       the others, a file for each task: extrapolate, backtest, inspect
    methods.py   the numerics behind each of the API's methods
    kept.py      what a stage has made, for an attempt that has to take over; carriers.py writes it down
    devices.py   where the maths is done
    profile.py   progress and cost, stage by stage; memory.py keeps the peak low
    errors.py    what can end a job, and whose it is to mend; naming.py, what callers call its files

    publishing.py  the report for good: as JSON, and as a page
    rendering/     the page, its charts and the model card
    geometry.py    a run's geometry as reports show it; scoring.py, the scores of backtests
    provenance.py  what every report says of its own making; versions.py, what computed it
    files.py       digests, and how files get to disk

The worker talks to the store alone; the child talks to the worker and the file system alone.
"""
