"""Checkpoint URIs: what a caller may name, and how the service finds it.

    parsing.py     text -> typed checkpoints; the text is never looked at again
    resolving.py   typed checkpoints -> what a job reads: found, pinned and bounded, each in its own way:
    disk.py          file://, below the folders that the operator lists
    hub.py           hf://, from one Hub, with the caller's own token
    buckets.py       s3://, from the buckets that the operator lists
    pinned.py        what is found of one: which files they are, and that they stay what they are

Weights are not read here: a worker fetches them, by what was pinned. Configurations are, since they are small
and say most of what a job can be refused for.
"""

from nextrapolate_service.uris.parsing import parse_checkpoints
from nextrapolate_service.uris.resolving import resolve

__all__ = ["parse_checkpoints", "resolve"]
