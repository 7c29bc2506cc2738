"""A safetensors file, mapped into memory once: its tensors are views of its pages.

A page that was touched counts as the process's resident memory for as long as it is mapped, which for a run's
files would be all of their bytes. A file therefore forgets its pages again and again; who still holds a
tensor then has its pages read anew, most often from the system's cache.
"""

import ctypes
import json
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from io import FileIO
from math import prod
from pathlib import Path
from types import MappingProxyType
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

_HELD_BYTES = 1 << 16  # of each file, beside the tensor asked for last


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
        entries: what its header says of its tensors, by name; one object, as a rule, for files whose headers
            are the same.

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
        self.entries = _entries(self._bytes(8, data))
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

    @contextmanager
    def reading(self) -> Iterator[Callable[[Sequence[str], Tensor], None]]:
        """Open the file once more, to copy tensors from it past its pages.

        Yields:
            What copies the tensors of some names, one behind the other, into memory that is given: on the
            CPU, contiguous, of as many entries as they have. Those that lie so in the file, too, come in one
            call. It raises KeyError where there is none of a name, or it is of a dtype that no factor has,
            and OSError where the file cannot be read any more or was cut short. Where another one is in its
            place by now, or dtypes are others, its pages are read.
        """
        file: FileIO | None = None
        with ExitStack() as stack:
            with suppress(OSError):
                opened = stack.enter_context(self._path.open("rb", buffering=0))
                if os.path.samestat(os.fstat(opened.fileno()), self._stat):
                    file = opened
            yield partial(self._read, file)

    def _read(self, file: FileIO | None, names: Sequence[str], room: Tensor) -> None:
        entries = [self.entries[name] for name in names]
        wanted = all(DTYPES[entry.dtype] is room.dtype for entry in entries)
        if file is not None and wanted:
            _fill(room.view(torch.uint8), file, entries)
            return
        sizes = [prod(entry.shape) for entry in entries]
        for name, part in zip(names, torch.split(room, sizes), strict=True):
            part.copy_(self.tensor(name).flatten())

    def forget(self) -> None:
        """Let go of the memory that reading took, where the system knows how."""
        if _madvise is not None:
            _madvise(self._pages.data_ptr(), self._pages.nbytes, mmap.MADV_DONTNEED)
        self._handed_out = 0

    def _bytes(self, begin: int, end: int) -> bytes:
        return self._pages[begin:end].numpy().tobytes()


@lru_cache(maxsize=4)
def _entries(header: bytes) -> Mapping[str, Entry]:
    """What a header says; a run's files all have the same one, as a rule."""
    data, tensors = 8 + len(header), json.loads(header)
    tensors.pop("__metadata__", None)
    entries = {
        name: Entry(found["dtype"], tuple(found["shape"]), *(data + end for end in found["data_offsets"]))
        for name, found in tensors.items()
    }
    return MappingProxyType(entries)  # of several files


def _fill(room: Tensor, file: FileIO, entries: Sequence[Entry]) -> None:
    """Read tensors' bytes, those that lie one behind the other in one call."""
    for begin, end in _runs(entries):
        buffer: Any = room[: end - begin].numpy()
        if os.preadv(file.fileno(), [buffer], begin) < end - begin:
            raise OSError("it was cut short")
        room = room[end - begin :]


def _runs(entries: Sequence[Entry]) -> Iterator[tuple[int, int]]:
    """Beginning and end of those that lie one behind the other."""
    begin = end = entries[0].begin
    for entry in entries:
        if entry.begin != end:
            yield begin, end
            begin = entry.begin
        end = entry.end
    yield begin, end


_madvise = getattr(ctypes.CDLL(None), "madvise", None) if hasattr(mmap, "MADV_DONTNEED") else None
if _madvise is not None:
    _madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
