"""What a checkpoint's files may hold, checked in whichever way they come: uploaded, fetched or linked.

safetensors_header.py   adapter_model.safetensors, of which the header tells all
lora_tensors.py         what tensors there have to be in it
adapter_config.py       adapter_config.json
lora_numbers.py         the ranks and scalings in it
intake.py               either of them on its way in: bounded, and checked while it arrives
"""

from collections.abc import Callable, Mapping
from typing import BinaryIO, Protocol

from nextrapolate.schemas import ADAPTER_CONFIG, ADAPTER_MODEL
from nextrapolate_store.content.adapter_config import MAX_CONFIG_BYTES, ConfigCheck
from nextrapolate_store.content.safetensors_header import HeaderCheck
from nextrapolate_store.errors import BrokenAdapter

PICKLED_MODEL = "adapter_model.bin"
"""What PEFT calls the weights where it does not write safetensors."""

_PIECE_BYTES = 1 << 16


class ContentCheck(Protocol):
    """Looks at a file while it arrives; raises `UnusableContent` where it cannot be used."""

    @property
    def is_complete(self) -> bool:
        """True once no further piece could change the judgement; the file's length still has to be told."""

    def feed(self, piece: bytes) -> None:
        """Take the next piece."""

    def finish(self, total_bytes: int | None = None) -> None:
        """The file is whole, and has so many bytes; by default those that were fed."""


_CHECKS: Mapping[str, Callable[[], ContentCheck]] = {
    ADAPTER_MODEL: HeaderCheck,
    ADAPTER_CONFIG: ConfigCheck,
}


def check_of(name: str) -> ContentCheck:
    """Make the check for the file of that name, which is one of the two of an adapter."""
    return _CHECKS[name]()


def largest(name: str, max_model_bytes: int) -> int:
    """How many bytes the file of that name may have, where weights may have `max_model_bytes`."""
    return MAX_CONFIG_BYTES if name == ADAPTER_CONFIG else max_model_bytes


def pickled(name: str) -> BrokenAdapter:
    """Make the error for weights that are there as a pickle only."""
    return BrokenAdapter(
        f"{name} is a pickle, which can run code when it is loaded: load it with PEFT and save it again with "
        "save_pretrained (safe_serialization=True)",
        field=name,
    )


def check_file(name: str, file: BinaryIO) -> None:
    """Check a file that is there already, and read no more of it than that takes.

    Raises:
        UnusableContent: it cannot be used as the file of that name.
    """
    check = check_of(name)
    while not check.is_complete and (piece := file.read(_PIECE_BYTES)):
        check.feed(piece)
    check.finish(file.seek(0, 2))
