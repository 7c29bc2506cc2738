"""What is found of a checkpoint: which files they are, and that they stay what they are."""

from dataclasses import dataclass

from nextrapolate_store.records import Source


@dataclass(frozen=True)
class Pinned:
    """The two files of an adapter, by names that lead to the same content as long as they lead anywhere."""

    model: Source
    config: Source
