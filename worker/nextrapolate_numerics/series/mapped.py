"""A safetensors file, mapped into memory once: its tensors are views of its pages.

A page that was touched counts as the process's resident memory for as long as it is mapped, which for a run's
files would be all of their bytes. A file therefore forgets its pages again and again; who still holds a
tensor then has its pages read anew, most often from the system's cache.
"""

import ctypes
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
}
"""Those that factors may have, by their safetensors names."""

_HELD_BYTES = 1 << 18  # of each file, beside the tensor asked for last


@dataclass(frozen=True)
class Entry:
    """What the header says of one tensor.

    Attributes:
        dtype: its safetensors name.
        shape: lengths of its axes.
        begin: its first byte in the file.
        end: the byte after its last one.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class MappedFile:
    """A file of tensors, open for as long as this or a tensor of it is held; no descriptor is.

    It may be moved, deleted or replaced meanwhile. One that is cut short in its place takes the process with
    it, by SIGBUS, as every mapped file does.

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
        self._path, self._stat = path, path.stat()
        self._pages = torch.from_file(str(path), shared=False, size=self._stat.st_size, dtype=torch.uint8)
        data = 8 + int.from_bytes(self._bytes(0, 8), "little")
        header = json.loads(self._bytes(8, data))
        header.pop("__metadata__", None)
        self.entries = {
            name: Entry(found["dtype"], tuple(found["shape"]), *(data + end for end in found["data_offsets"]))
            for name, found in header.items()
        }
        self._handed_out = 0

    def tensor(self, name: str) -> Tensor:
        """One tensor, not read yet; it is not to be written to.

        Raises:
            KeyError: there is none of that name, or it is of a dtype that no factor has.
        """
        entry = self.entries[name]
        if self._handed_out > _HELD_BYTES:
            self.forget()
        self._handed_out += entry.end - entry.begin
        dtype, found = DTYPES[entry.dtype], self._pages[entry.begin : entry.end]
        if entry.begin % dtype.itemsize:
            found = found.clone()  # other writers than safetensors' own do not align what they write
        return found.view(dtype).view(entry.shape)

    def read(self, rooms: Mapping[str, Tensor]) -> None:
        """Copy tensors into memory that is given, by their names.

        Where they are stored as wanted, and the file is where it was, its pages are left alone: tensors that
        lie one behind the other come in one call.

        Raises:
            KeyError: there is none of that name, or it is of a dtype that no factor has.
        """
        entries = {name: self.entries[name] for name in rooms}
        wanted = all(rooms[name].dtype is DTYPES[entry.dtype] for name, entry in entries.items())
        if not (wanted and self._read(sorted(entries, key=lambda name: entries[name].begin), rooms)):
            for name, room in rooms.items():
                room.copy_(self.tensor(name))

    def _read(self, names: Sequence[str], rooms: Mapping[str, Tensor]) -> bool:
        """Read tensors from the file, in its order; False where it is another one by now, or cut short."""
        with suppress(OSError), self._path.open("rb", buffering=0) as file:
            if not os.path.samestat(os.fstat(file.fileno()), self._stat):
                return False
            for run in self._runs(names):
                buffers: list[Any] = [rooms[name].numpy() for name in run]
                read = os.preadv(file.fileno(), buffers, self.entries[run[0]].begin)
                if read < sum(buffer.nbytes for buffer in buffers):
                    return False
            return True
        return False

    def _runs(self, names: Sequence[str]) -> Iterator[list[str]]:
        """Those that lie one behind the other."""
        run: list[str] = []
        for name in names:
            if run and self.entries[run[-1]].end != self.entries[name].begin:
                yield run
                run = []
            run.append(name)
        yield run

    def forget(self) -> None:
        """Let go of the memory that reading took, where the system knows how."""
        if _madvise is not None:
            _madvise(self._pages.data_ptr(), self._pages.nbytes, mmap.MADV_DONTNEED)
        self._handed_out = 0

    def _bytes(self, begin: int, end: int) -> bytes:
        return self._pages[begin:end].numpy().tobytes()


_madvise = getattr(ctypes.CDLL(None), "madvise", None) if hasattr(mmap, "MADV_DONTNEED") else None
if _madvise is not None:
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
