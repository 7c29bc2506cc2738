"""Faults against a whole deployment, at random places, and whether it kept its promises.

    PYTHONPATH=tests python -m chaos --seeds 5 --jobs 200 --faults 45      (`make chaos`)

    gates.py       a proxy before Redis for each process, which can fall silent
    processes.py   Redis, APIs and workers, as processes that are started again whenever they die
    callers.py     callers that submit jobs over HTTP until each is acknowledged
    faults.py      what goes wrong: one function a kind
    campaign.py    one seed: deployment, callers and faults, until every job has ended
    recovery.py    how long recoveries took, read from the events of the jobs
    verdict.py     the promises, one function each
    summary.py     the table at the end

The deployment is real: Redis with appendfsync always, the API behind uvicorn, Celery workers. Their children
come from hatchery/: that each imports torch would be most of a campaign.
"""
