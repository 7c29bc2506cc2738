"""The service: HTTP in front of `nextrapolate_store`, and the `nextrapolate-server` command.

A request goes router -> one function -> typed answer:

    routers/           parse, call, answer; auth.py, dependencies.py and context.py give them what they need
    bodies.py          what may come as a body
    uploads.py         one file of a checkpoint, streamed through its checks into the blob store
    submission.py      a JobRequest becomes JobInputs: URIs and series resolved, everything cheap checked
    uris/              checkpoint URIs, found and pinned
    methods.py         the methods that are offered; method_checks.py, whether checkpoints will do for one
    waiting.py         requests that wait for the ends of jobs
    events.py          a job's events as they happen; streams.py, how many are followed at once
    views.py           records as answers; results.py, what a job has left behind
    errors.py          what is refused
    problems.py        every error, as RFC 9457 problem+json; invalid_fields.py, field by field
    openapi.py         what the document says beyond the routes
    generators.py      what generators of clients need of it
    pages/             what people look at; sessions.py, a cookie in place of the key

and around the requests:

    app.py             all of it, put together; serving.py runs it, settings.py says how
    bounded_http.py    how long what comes before a body may be, and how long it may take
    opening.py         the store, opened when Redis is there
    wakeup.py          the Celery message of a job; reconciler.py sends again what got lost
    webhooks/          whoever asked for it is told that a job has ended
    disk.py            the space that is kept free
    audit.py           who did what; metrics.py, what Prometheus reads
    server/            the embedded server: Redis, workers and the API as children of one process

    app = create_app(ServiceSettings.from_environment())

The service never computes: it enqueues by task name and does not import the worker.
"""
