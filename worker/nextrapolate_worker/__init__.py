"""The worker: takes one job at a time off the queue and runs it in a child process.

    app.py       the Celery app and its one task, which takes a job id
    attempt.py   one attempt at a job: claim, heartbeat, commit
    wakeups.py   the message that names a job
    nursery.py   child processes, one always warm
    lease.py     the right to commit, kept alive by beats
    messages.py  what worker and child say to each other
    child.py     the child's main
    pipeline.py  the seven stages, files in, artifacts out
    loading.py   the first two of them: from a job's sources to a trajectory
    tasks/       the others, a file for each task: extrapolate, backtest, inspect
    kept.py      what a stage has made, for an attempt that has to take over; carriers.py writes it down

The worker talks to the store alone; the child talks to the worker and the file system alone.
"""
