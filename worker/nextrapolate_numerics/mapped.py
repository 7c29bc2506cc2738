"""A safetensors file, mapped into memory once: its tensors are views of its pages.

A page that was touched counts as the process's resident memory for as long as it is mapped, which for a run's
files would be all of their bytes. A file therefore forgets its pages again and again; who still holds a
tensor then has its pages read anew, most often from the system's cache.
"""

import json
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

_HELD_BYTES = 1 << 20  # of each file, beside the tensors asked for last
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor.

    Attributes:
        dtype: its safetensors name.
        shape: lengths of its axes.
        begin: its first byte in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int


class MappedFile:
    """A file of tensors, open for as long as this or a tensor of it is held.

    Args:
        path: where it is.

    Attributes:
        entries: what its header says of its tensors, by name.

    Raises:
        SafetensorError: what it says of itself does not hold.
        OSError: it cannot be opened.
    """

    entries: Mapping[str, Entry]

    def __init__(self, path: Path) -> None:
        with safe_open(path, framework="pt"):
            pass  # the header is sound, and all tensors lie within the file
        with path.open("rb") as file:
            self._pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        data = 8 + int.from_bytes(self._pages[:8], "little")
        header = json.loads(self._pages[8:data])
        header.pop("__metadata__", None)
        self.entries = {
            name: Entry(found["dtype"], tuple(found["shape"]), data + found["data_offsets"][0])
            for name, found in header.items()
        }
        self._handed_out = 0

    def tensor(self, name: str) -> Tensor:
        """One tensor of floating point numbers, not read yet. It is not to be written to."""
        entry = self.entries[name]
        if self._handed_out > _HELD_BYTES:
            self._forget()
        found = torch.frombuffer(
            self._pages, dtype=_DTYPES[entry.dtype], count=prod(entry.shape), offset=entry.begin
        )
        self._handed_out += found.nbytes
        return found.view(entry.shape)

    def _forget(self) -> None:
        if hasattr(mmap, "MADV_DONTNEED"):  # where there is none, pages stay until the system wants them
            self._pages.madvise(mmap.MADV_DONTNEED)
        self._handed_out = 0
