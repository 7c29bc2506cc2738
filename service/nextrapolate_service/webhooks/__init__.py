"""Webhooks: whoever asked for it is told that a job has ended.

    addresses.py     which addresses may be told
    names.py         which addresses a name stands for
    message.py       what is said, and its signature
    sending.py       one attempt
    delivering.py    attempt after attempt, in every API process

What is due, and what came of each attempt, is in the store: a webhook outlives the process that was telling
it, and is told at least once. All attempts carry the same webhook-id.
"""
