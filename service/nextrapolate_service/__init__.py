"""The service: HTTP in front of `nextrapolate_store`, and the `nextrapolate-server` command.

A request goes router -> one function -> typed answer:

    routers/        parse, call, answer; auth.py, dependencies.py and context.py give them what they need
    uploads.py      one file of a checkpoint, streamed through its checks into the blob store
    submission.py   a JobCreate becomes JobInputs: URIs and series resolved, everything cheap checked
    waiting.py      requests that wait for the ends of jobs
    wakeup.py       the Celery message of a job; reconciler.py sends again what got lost
    problems.py     every error, as RFC 9457 problem+json
    server/         the embedded server: Redis, workers and the API as children of one process

    app = create_app(ServiceSettings.from_environment())

The service never computes: it enqueues by task name and does not import the worker.
"""
