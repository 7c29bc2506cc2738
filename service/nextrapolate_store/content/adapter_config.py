"""adapter_config.json, as far as a request can be refused by it; the numerics read the rest."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nextrapolate_store.content.lora_numbers import broken, checked_rank, shown
from nextrapolate_store.errors import FileTooLarge, UnsupportedAdapter

MAX_CONFIG_BYTES = 64 << 10

# field of adapter_config.json -> why its effect is not s B A on a fixed base weight
_REFUSED_FIELDS: Mapping[str, str] = {
    "use_dora": "its magnitude vector changes the weight beyond B A; train with use_dora=false",
    "lora_bias": "a bias beside B is a change that B A does not hold",
    "target_parameters": "factors of bare parameters have a layout of their own",
    "alora_invocation_tokens": "it acts on some of the tokens only",
    "layer_replication": "replicated layers are not the base model's modules",
    "use_qalora": "its A acts on pooled inputs",
    "use_bdlora": "its block-diagonal factors have a layout of their own",
    "arrow_config": "it routes between several adapters",
    "kasa_config": "it truncates the base weight and scales between B and A",
    "monteclora_config": "its factors are drawn anew around those saved",
}


_INITS_BESIDE_THE_BASE = ("gaussian", "orthogonal", "eva")
"""They draw A, or both so that B A = 0, and leave the base model as it is."""


@dataclass(frozen=True)
class ConfigFacts:
    """What a configuration says of its run, as far as a request is judged by it.

    Attributes:
        rank: the rank r.
        starts_at_base: False under init_lora_weights=false, whose B does not start at 0.
    """

    rank: int
    starts_at_base: bool


class ConfigCheck:
    """Checks a configuration that arrives in pieces."""

    def __init__(self) -> None:
        self._document = bytearray()

    def feed(self, piece: bytes) -> None:
        """Take the next piece.

        Raises:
            FileTooLarge: it is larger than any adapter_config.json.
        """
        self._document += piece
        _check_size(self._document)

    @property
    def is_complete(self) -> bool:
        """False: JSON is judged as a whole."""
        return False

    def finish(self, total_bytes: int | None = None) -> None:
        """Check what has arrived, whatever the file's length; raises as `checked_config` does."""
        checked_config(bytes(self._document))


def checked_config(document: bytes) -> ConfigFacts:
    """Check an adapter_config.json, and give what it says of its run.

    Raises:
        FileTooLarge: it is larger than any adapter_config.json.
        BrokenAdapter: not a JSON object, or without a usable r and lora_alpha.
        UnsupportedAdapter: a feature whose delta is not B A; it is named.
    """
    _check_size(document)
    try:
        fields = json.loads(document.decode())
    except (ValueError, RecursionError) as error:
        raise broken(
            "adapter_config.json", f"this is not JSON ({error}); send the file PEFT has written"
        ) from None
    if not isinstance(fields, dict):
        raise broken("adapter_config.json", "this is not a JSON object; send the file PEFT has written")
    return checked_facts(fields)


def checked_facts(fields: Mapping[str, Any]) -> ConfigFacts:
    """Check the fields of an adapter_config.json, and give what they say; raises as `checked_config` does."""
    _refuse_features(fields)
    starts_at_base = fields.get("init_lora_weights", True) is not False
    return ConfigFacts(checked_rank(fields), starts_at_base)


def _check_size(document: bytes | bytearray) -> None:
    if len(document) > MAX_CONFIG_BYTES:
        raise FileTooLarge(
            f"adapter_config.json is larger than {MAX_CONFIG_BYTES} bytes: send the file that PEFT has "
            "written",
            field="adapter_config.json",
        )


def _refuse_features(fields: Mapping[str, Any]) -> None:
    kind = fields.get("peft_type", "LORA")
    if kind != "LORA":
        raise _unsupported("peft_type", kind, "only LoRA has the factors B and A")
    for field, why in _REFUSED_FIELDS.items():
        if fields.get(field):
            raise _unsupported(field, fields[field], why)
    bias = fields.get("bias", "none")
    if bias != "none":
        raise _unsupported("bias", bias, "trained biases of the base model are not part of B A")
    init = fields.get("init_lora_weights", True)
    if not isinstance(init, bool) and init not in _INITS_BESIDE_THE_BASE:
        raise _unsupported(
            "init_lora_weights",
            init,
            "such inits (PiSSA, OLoRA, LoftQ, CorDA) change the base model's weights, so that B A is not the "
            "change since the base model; train with another, or convert the adapter with PEFT's "
            "path_initial_model_for_weight_conversion",
        )


def _unsupported(field: str, value: Any, why: str) -> UnsupportedAdapter:
    return UnsupportedAdapter(
        f"adapter_config.json: {field}={shown(value)} cannot be extrapolated: {why}", field=field
    )
