"""adapter_config.json: what of it fixes a delta, and which features are refused.

PEFT's meaning of every field, checked against PEFT in the tests.
"""

import json
import math
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nextrapolate_numerics.errors import BrokenAdapterError, UnsupportedAdapterError

_RANKS_END = 2**31
_LEAST_ALPHA, _ALPHAS_END = 2.0**-126, 2.0**128
"""What float32 holds in full precision, as every trainer has it: beyond, products of factors overflow."""
_MATCH_SECONDS = 0.1  # of the processor, for one pattern on one name; microseconds are usual

_INITS_BESIDE_THE_BASE = ("gaussian", "orthogonal", "eva")
"""They draw A, or both so that B A = 0, and leave the base model as it is."""

# field of adapter_config.json -> the feature's name, and why its effect is not s B A on a fixed base weight
_REFUSED: Mapping[str, tuple[str, str]] = {
    "use_dora": ("DoRA (use_dora)", "its magnitude vector changes the weight beyond B A"),
    "lora_bias": ("lora_bias", "a bias beside B is a change that B A does not hold"),
    "target_parameters": ("target_parameters", "factors of bare parameters have a layout of their own"),
    "alora_invocation_tokens": ("aLoRA (alora_invocation_tokens)", "it acts on some of the tokens only"),
    "layer_replication": ("layer_replication", "replicated layers are not the base model's modules"),
    "use_qalora": ("QA-LoRA (use_qalora)", "its A acts on pooled inputs"),
    "use_bdlora": ("BD-LoRA (use_bdlora)", "its block-diagonal factors have a layout of their own"),
    "arrow_config": ("Arrow (arrow_config)", "it routes between several adapters"),
    "kasa_config": ("KaSA (kasa_config)", "it truncates the base weight and scales between B and A"),
    "monteclora_config": ("MonteCLoRA (monteclora_config)", "its factors are drawn anew around those saved"),
}


@dataclass(frozen=True)
class LoraConfig:
    """A LoRA's adapter_config.json.

    Attributes:
        path: the file.
        fields: all of it, as read.
        r, lora_alpha, use_rslora: of modules that no pattern matches.
        rank_pattern, alpha_pattern: regular expression over module names -> rank or alpha.
        base_model: name or path of the base model, None where the file has none.
        starts_at_base: False under init_lora_weights=false, whose B does not start at 0.
    """

    path: Path
    fields: Mapping[str, Any]
    r: int
    lora_alpha: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base_model: str | None
    starts_at_base: bool

    @classmethod
    def read(cls, path: Path) -> "LoraConfig":
        """Read and check the file.

        Raises:
            BrokenAdapterError: missing, not JSON, or without a usable r and lora_alpha.
            UnsupportedAdapterError: a feature whose delta is not s B A; it is named.
        """
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BrokenAdapterError(path, "the file is missing; save the adapter again with PEFT") from None
        except (OSError, ValueError, RecursionError) as reason:
            raise BrokenAdapterError(path, f"this is not a readable JSON file ({reason})") from None
        if not isinstance(fields, dict):
            raise BrokenAdapterError(path, "the file does not hold a JSON object")
        _refuse_features(fields, path)
        try:
            config = cls(
                path=path,
                fields=fields,
                r=int(fields["r"]),
                lora_alpha=float(fields["lora_alpha"]),
                use_rslora=bool(fields.get("use_rslora", False)),
                rank_pattern={key: int(value) for key, value in (fields.get("rank_pattern") or {}).items()},
                alpha_pattern={
                    key: float(value) for key, value in (fields.get("alpha_pattern") or {}).items()
                },
                base_model=fields.get("base_model_name_or_path"),
                starts_at_base=fields.get("init_lora_weights", True) is not False,
            )
        except KeyError as missing:
            raise BrokenAdapterError(path, f"the field {missing} is missing") from None
        except (AttributeError, TypeError, ValueError, OverflowError) as reason:
            raise BrokenAdapterError(path, f"r, lora_alpha or a pattern is not a number ({reason})") from None
        config._check()
        return config

    def says_the_same_as(self, other: "LoraConfig") -> bool:
        """Whether all that follows from one follows from the other, the order of patterns included."""
        return json.dumps(self.fields) == json.dumps(other.fields)

    def rank(self, module: str) -> int:
        """The module's rank.

        Raises:
            BrokenAdapterError: a pattern takes too long on the module's name.
        """
        return int(self._by_pattern(self.rank_pattern, module, self.r))

    def scaling(self, module: str) -> float:
        """The module's s in dW = s B A: alpha / r, and alpha / sqrt(r) under rsLoRA (arXiv 2312.03732).

        Raises:
            BrokenAdapterError: as `rank`.
        """
        alpha = self._by_pattern(self.alpha_pattern, module, self.lora_alpha)
        rank = self.rank(module)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def _check(self) -> None:
        for rank in (self.r, *self.rank_pattern.values()):
            if not 1 <= rank < _RANKS_END:
                raise BrokenAdapterError(
                    self.path,
                    f"the rank is {str(rank)[:20]}, but must be at least 1 and below {_RANKS_END}; write the "
                    "run's own rank",
                )
        for alpha in (self.lora_alpha, *self.alpha_pattern.values()):
            if not _LEAST_ALPHA <= alpha < _ALPHAS_END:
                raise BrokenAdapterError(
                    self.path,
                    f"lora_alpha is {alpha:g}, but must be positive and within float32; write the run's own "
                    "lora_alpha",
                )
        for pattern in (*self.rank_pattern, *self.alpha_pattern):
            try:
                re.compile(_whole(pattern))
            except (re.error, OverflowError, RecursionError) as reason:
                raise BrokenAdapterError(
                    self.path, f"the pattern {pattern!r} is not a regular expression ({reason})"
                ) from None

    def _by_pattern(self, patterns: Mapping[str, float], module: str, default: float) -> float:
        """The value of the first pattern that matches the module's name or a dotted tail of it."""
        for pattern, value in patterns.items():
            try:
                if _matches(pattern, module):
                    return value
            except TimeoutError:
                raise BrokenAdapterError(
                    self.path,
                    f"the pattern {pattern!r} takes too long to match {module}; write it without repeats of "
                    "repeats, or name the modules",
                ) from None
        return default


@lru_cache(maxsize=1 << 16)
def _matches(pattern: str, module: str) -> bool:
    """Whether a pattern matches a module's name or a dotted tail of it.

    Each is asked once, as a series is opened. Later on, in threads, nothing could stop it.

    Raises:
        TimeoutError: it would try for ever.
    """
    with _stopped_after(_MATCH_SECONDS):
        return re.match(_whole(pattern), module) is not None


@contextmanager
def _stopped_after(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer: by a signal, as `re` hears, so in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _whole(pattern: str) -> str:
    """What PEFT makes of a pattern: of a name, or of a dotted tail of one."""
    return rf"(.*\.)?({pattern})$"


def _refuse_features(fields: Mapping[str, Any], path: Path) -> None:
    kind = fields.get("peft_type", "LORA")
    if kind != "LORA":
        raise UnsupportedAdapterError(f"peft_type {kind}", "only LoRA has the factors B and A", path)
    for field, (feature, why) in _REFUSED.items():
        if fields.get(field):
            raise UnsupportedAdapterError(feature, why, path)
    if fields.get("bias", "none") != "none":
        raise UnsupportedAdapterError(
            f"bias={fields['bias']!r}", "trained biases of the base model are not part of B A", path
        )
    init = fields.get("init_lora_weights", True)
    if not isinstance(init, bool) and init not in _INITS_BESIDE_THE_BASE:
        raise UnsupportedAdapterError(
            f"init_lora_weights={init!r}",
            "such inits (PiSSA, OLoRA, LoftQ, CorDA) change the base model's weights, so that B A is not the "
            "change since the base model; train with another, or convert the adapter with PEFT's "
            "path_initial_model_for_weight_conversion",
            path,
        )
