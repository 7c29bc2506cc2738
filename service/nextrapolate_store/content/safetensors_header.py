"""The header of adapter_model.safetensors, checked here: the library accepts what must not be let in.

Format: 8 bytes with the header's length N (little-endian), N bytes of JSON, then the tensors' bytes. The JSON
maps a tensor's name to its dtype, shape and data_offsets. Duplicate keys, names like ../../etc/passwd, gaps
and overlaps are refused, so that every reader of the file sees the same tensors.
"""

import json
import math
import re
from collections import Counter
from typing import Any

from nextrapolate_store.content.lora_tensors import SAVE_AGAIN, Tensor, broken, check_tensors

MAX_HEADER_BYTES = 8 << 20

_PREFIX_BYTES = 8
_MAGIC = {b"PK\x03\x04": "a zip archive, as torch.save writes it", b"\x80": "a pickle"}
_DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
_SIZES_END, _MOST_SIZES = 2**63, 8
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,511}")


class HeaderCheck:
    """Checks a file that arrives in pieces: the header as soon as it is whole, the length at the end."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._header_bytes: int | None = None
        self._tensors: tuple[Tensor, ...] | None = None
        self._arrived = 0

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            BrokenAdapter: the header is not one of a LoRA adapter; the field is named.
            UnsupportedAdapter: it shows a feature whose delta is not B A.
        """
        self._arrived += len(piece)
        if self._tensors is not None:
            return
        self._head += piece
        if self._header_bytes is None and len(self._head) >= _PREFIX_BYTES:
            self._header_bytes = _header_length(bytes(self._head[:_PREFIX_BYTES]))
        if self._header_bytes is not None and len(self._head) >= _PREFIX_BYTES + self._header_bytes:
            document = bytes(self._head[_PREFIX_BYTES : _PREFIX_BYTES + self._header_bytes])
            self._tensors = parse_header(document)
            self._head.clear()

    @property
    def is_complete(self) -> bool:
        """True once the header has been seen and found good."""
        return self._tensors is not None

    def finish(self, total_bytes: int | None = None) -> None:
        """Hold the file's length, by default what was fed, against what its tensors say.

        Raises:
            BrokenAdapter: bytes are missing, or there are more than the tensors explain.
        """
        total = self._arrived if total_bytes is None else total_bytes
        if self._tensors is None or self._header_bytes is None:
            raise broken("header", f"the file ends after {total} bytes, within its header; {SAVE_AGAIN}")
        data = max((tensor.end for tensor in self._tensors), default=0)
        expected = _PREFIX_BYTES + self._header_bytes + data
        if total != expected:
            what = "is truncated" if total < expected else "has trailing bytes"
            raise broken(
                "data_offsets",
                f"the file {what}: it has {total} bytes, but its header says {expected}; save or send the "
                "whole file",
            )


def parse_header(document: bytes) -> tuple[Tensor, ...]:
    """Read the header's JSON, and check that it describes a LoRA adapter without a gap.

    Raises:
        BrokenAdapter: it does not; the field is named.
        UnsupportedAdapter: it shows a feature whose delta is not B A.
    """
    try:
        entries = json.loads(document.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise broken("header", f"the header is not JSON ({error}); {SAVE_AGAIN}") from None
    if not isinstance(entries, dict):
        raise broken("header", f"the header is not a JSON object; {SAVE_AGAIN}")
    _check_metadata(entries.pop("__metadata__", None))
    tensors = tuple(_tensor(name, entry) for name, entry in entries.items())
    _check_contiguous(tensors)
    check_tensors({tensor.name: tensor for tensor in tensors})
    return tensors


def _header_length(prefix: bytes) -> int:
    length = int.from_bytes(prefix, "little")
    if 2 <= length <= MAX_HEADER_BYTES:
        return length
    for magic, what in _MAGIC.items():
        if prefix.startswith(magic):
            raise broken("header", f"this is {what}, which can run code when it is loaded; {SAVE_AGAIN}")
    raise broken(
        "header", f"a header of {length} bytes is not valid (at most {MAX_HEADER_BYTES}); {SAVE_AGAIN}"
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise broken(_shown(repeated), f"the header has the key {_shown(repeated)} twice; {SAVE_AGAIN}")
    return unique


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _check_metadata(metadata: Any) -> None:
    are_texts = metadata is None or (
        isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    )
    if not are_texts:
        raise broken("__metadata__", f"__metadata__ may hold texts alone; {SAVE_AGAIN}")


def _tensor(name: str, entry: Any) -> Tensor:
    if not _NAME.fullmatch(name) or ".." in name:
        raise broken(
            _shown(name),
            f"{_shown(name)} is not the name of a tensor: letters, digits, _ . - only; {SAVE_AGAIN}",
        )
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
            _is_shape(shape) and type(begin) is type(end) is int
        ):
            tensor = Tensor(name, dtype, tuple(shape), begin, end)
        case _:
            raise broken(name, f"{name} lacks a dtype, a usable shape or data_offsets; {SAVE_AGAIN}")
    if dtype not in _DTYPE_BYTES:
        raise broken(f"{name}.dtype", f"{name} has the unknown dtype {_shown(dtype)}; save it as float32")
    size = math.prod(tensor.shape) * _DTYPE_BYTES[dtype]
    if not 0 <= begin <= end or end - begin != size:
        raise broken(
            f"{name}.data_offsets",
            f"{name} has {size} bytes by its dtype and shape, but its offsets say otherwise; {SAVE_AGAIN}",
        )
    return tensor


def _is_shape(sizes: list[Any]) -> bool:
    """Bounded, or multiplying the sizes would take for ever, and saying their product be impossible."""
    bounded = all(type(size) is int and 0 <= size < _SIZES_END for size in sizes)
    return bounded and len(sizes) <= _MOST_SIZES


def _check_contiguous(tensors: tuple[Tensor, ...]) -> None:
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != position:
            what = "overlaps the tensor before it" if tensor.begin < position else "leaves a gap before it"
            raise broken(f"{tensor.name}.data_offsets", f"{tensor.name} {what}; {SAVE_AGAIN}")
        position = tensor.end


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")
