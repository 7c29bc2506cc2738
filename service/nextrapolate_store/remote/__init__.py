"""Files that lie elsewhere: found and pinned by the service, fetched by a worker.

    hub.py        a Hugging Face Hub
    buckets.py    S3, and what speaks like it
    fetching.py   from there into the blobs of a tenant

Each says in the same three errors what went wrong: RemoteNotFound, RemoteChanged and RemoteUnavailable.
"""
