"""adapter_model.safetensors: the layout of a PEFT adapter, and its factors one module at a time."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nextrapolate_numerics.errors import BrokenAdapterError, UnsupportedAdapterError
from nextrapolate_numerics.series.lora_config import LoraConfig
from nextrapolate_numerics.series.tensor_file import DTYPES, TensorFile

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")
_BASE_PREFIX = "base_model.model."
_PICKLE = (
    "this is a PyTorch pickle, which can run code when it is loaded; save the adapter as safetensors "
    "(save_pretrained with safe_serialization=True)"
)
_PICKLE_MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

# part of a tensor's name -> the feature it gives away, and why B A is not its delta
_REFUSED: Mapping[str, tuple[str, str]] = {
    "lora_magnitude_vector": ("DoRA", "its magnitude vector changes the weight beyond B A"),
    "lora_embedding_": (
        "LoRA on an embedding",
        "its factors are stored transposed; target linear layers only",
    ),
    "lora_B.bias": ("lora_bias", "a bias beside B is a change that B A does not hold"),
}


@dataclass(frozen=True)
class FactorKeys:
    """Where one module's factors are: names of the tensors, and m, n, r of B (m, r) and A (r, n)."""

    B: str
    A: str
    m: int
    n: int
    r: int


@dataclass(frozen=True)
class StoredFactor:
    """A factor as it lies in its file; each call reads it anew.

    Attributes:
        path: the file.
        file: the same, open.
        key: the tensor's name in it.
        shape: (m, r) or (r, n).
    """

    path: Path
    file: TensorFile
    key: str
    shape: tuple[int, int]

    def read(self) -> Tensor:
        """All of it, in the dtype that it was saved in.

        Raises:
            BrokenAdapterError: the file was cut short, or cannot be read any more.
        """
        try:
            return self.file.tensor(self.key)
        except OSError as reason:
            raise _unreadable(self.path, reason) from None

    def first_row(self) -> Tensor:
        """Float32.

        Raises:
            BrokenAdapterError: as of `read`.
        """
        return self.part(0, 0, 1, torch.empty(self.shape[1]))[0]

    def part(self, dim: int, start: int, length: int, room: Tensor) -> Tensor:
        """Some rows (`dim` 0) or columns (1), float32, in memory that is given (`TensorFile.part`).

        Raises:
            BrokenAdapterError: as of `read`.
        """
        try:
            return self.file.part(self.key, dim, start, length, room)
        except OSError as reason:
            raise _unreadable(self.path, reason) from None


@dataclass(frozen=True)
class AdapterLayout:
    """What one file holds, read from its header alone.

    Attributes:
        path: the file.
        file: the same, open.
        modules: module name as in the base model -> its factors, in the order of the names.
        others: names of tensors that are no factors (modules_to_save, trainable tokens).
        dtypes: safetensors names of the factors' dtypes.
    """

    path: Path
    file: TensorFile
    modules: Mapping[str, FactorKeys]
    others: tuple[str, ...]
    dtypes: frozenset[str]

    @classmethod
    def read(cls, path: Path, config: LoraConfig, like: "AdapterLayout | None" = None) -> "AdapterLayout":
        """Read the header and hold it against the config.

        Args:
            path: the file.
            config: its adapter_config.json.
            like: of an adapter whose config says the same; if its header does, too, all else follows.

        Raises:
            BrokenAdapterError: missing, truncated, a pickle, A without B, or another rank than the config's.
            UnsupportedAdapterError: tensors of a feature whose delta is not s B A.
        """
        with diagnosed(path):
            file = TensorFile(path)
        if like is not None and like.file.entries is file.entries:
            return replace(like, path=path, file=file)
        shapes = {key: entry.shape for key, entry in file.entries.items()}
        factors = {key: found for key in shapes if (found := _FACTOR.fullmatch(key))}
        others = tuple(sorted(shapes.keys() - factors.keys()))
        _refuse_tensors(others, path)
        names = sorted({found["module"] for found in factors.values()})
        if not names:
            raise BrokenAdapterError(path, "it contains no lora_A and lora_B; save the adapter with PEFT")
        modules = {}
        for name in names:
            module = name.removeprefix(_BASE_PREFIX)
            modules[module] = _factor_keys(name, module, shapes, config, path)
        used = frozenset(file.entries[key].dtype for key in factors)
        if strange := used - DTYPES.keys():
            raise BrokenAdapterError(
                path, f"factors of dtype {sorted(strange)[0]} cannot be read; save float32"
            )
        return cls(path, file, modules, others, used)

    def factors(self, module: str) -> tuple[StoredFactor, StoredFactor]:
        """B (m, r) and A (r, n) of one module."""
        keys = self.modules[module]
        return (
            StoredFactor(self.path, self.file, keys.B, (keys.m, keys.r)),
            StoredFactor(self.path, self.file, keys.A, (keys.r, keys.n)),
        )

    def other_tensors(self) -> dict[str, Tensor]:
        """The tensors that are no factors, as stored."""
        if not self.others:
            return {}
        with diagnosed(self.path), safe_open(self.path, framework="pt") as file:
            return {key: file.get_tensor(key).clone() for key in self.others}


@contextmanager
def diagnosed(path: Path) -> Iterator[None]:
    """What safetensors cannot read is answered with what to do about it."""
    if path.suffix in {".bin", ".pt", ".pth"}:
        raise BrokenAdapterError(path, _PICKLE)
    try:
        yield
    except FileNotFoundError:
        raise BrokenAdapterError(path, "the file is missing; save the adapter again with PEFT") from None
    except SafetensorError as reason:
        raise BrokenAdapterError(path, _diagnosis(path, str(reason))) from None
    except OSError as reason:
        raise _unreadable(path, reason) from None


def _unreadable(path: Path, reason: OSError) -> BrokenAdapterError:
    return BrokenAdapterError(path, f"it cannot be read ({reason})")


def _diagnosis(path: Path, reason: str) -> str:
    with path.open("rb") as file:
        if file.read(8).startswith(_PICKLE_MAGIC):
            return _PICKLE
    return f"it is truncated or not a safetensors file ({reason}); copy or save it again"


def _refuse_tensors(keys: tuple[str, ...], path: Path) -> None:
    for key in keys:
        for part, (feature, why) in _REFUSED.items():
            if part in key:
                raise UnsupportedAdapterError(f"{feature} ({key})", why, path)
        if "lora_" in key:
            raise BrokenAdapterError(path, f"the tensor {key} is not named as PEFT saves it (lora_A.weight)")


def _factor_keys(
    name: str, module: str, shapes: Mapping[str, tuple[int, ...]], config: LoraConfig, path: Path
) -> FactorKeys:
    B, A = f"{name}.lora_B.weight", f"{name}.lora_A.weight"
    for key in (B, A):
        if key not in shapes:
            raise BrokenAdapterError(
                path, f"{key} is missing, but its partner is there; save the adapter again"
            )
        if 0 in shapes[key]:
            raise BrokenAdapterError(path, f"{key} is empty; gather sharded weights before they are saved")
        if len(shapes[key]) != 2:
            raise UnsupportedAdapterError(
                f"LoRA on a convolution ({key})",
                "its factors are not matrices; target linear layers only",
                path,
            )
    (m, r), (rank, n) = shapes[B], shapes[A]
    if r != rank:
        raise BrokenAdapterError(path, f"{B} of rank {r} and {A} of rank {rank} cannot be multiplied")
    if r != config.rank(module):
        raise BrokenAdapterError(
            path,
            f"{module} has rank {r}, but adapter_config.json says {config.rank(module)}; they come from two "
            "different runs",
        )
    return FactorKeys(B, A, m, n, r)
