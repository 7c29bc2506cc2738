"""Two packages that may not know each other read an adapter's files: both refuse the same of them, and why.

The store refuses at the upload, the numerics when a job reads what never went through one.
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from fixtures.adapter_bytes import CONFIG
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from nextrapolate_numerics import BrokenAdapterError, NumericsError, UnsupportedAdapterError
from nextrapolate_numerics.series import LoraConfig
from nextrapolate_numerics.series.adapter import AdapterLayout
from nextrapolate_store.content import check_file
from nextrapolate_store.content.adapter_config import checked_facts
from nextrapolate_store.errors import BrokenAdapter, UnsupportedAdapter, UnusableContent

REFUSED = {
    "alora_invocation_tokens", "arrow_config", "bias", "init_lora_weights", "kasa_config",
    "layer_replication", "lora_bias", "monteclora_config", "peft_type", "target_parameters",
    "use_bdlora", "use_dora", "use_qalora",
}  # fmt: skip
FIELDS = REFUSED | {field.name for field in dataclasses.fields(peft.LoraConfig)}


def why_at_upload(fields: dict[str, Any]) -> str | None:
    """Why the store refuses the feature; None where it does not."""
    try:
        checked_facts(fields)
    except UnsupportedAdapter as refusal:
        return str(refusal)
    except UnusableContent:
        return None
    return None


def why_in_a_job(fields: dict[str, Any], folder: Path) -> str | None:
    """Why the numerics refuse the feature; None where they do not."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(fields))
    try:
        LoraConfig.read(path)
    except UnsupportedAdapterError as refusal:
        return refusal.why
    except NumericsError:
        return None
    return None


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_what_is_refused_at_the_upload_is_refused_in_a_job(field: str, tmp_path: Path) -> None:
    fields = {"peft_type": "LORA", "r": 8, "lora_alpha": 16} | {field: "set"}
    early, late = why_at_upload(fields), why_in_a_job(fields, tmp_path)
    assert (early is None) is (late is None) is (field not in REFUSED), (early, late)
    if early is not None and late is not None:
        assert late in early


@pytest.mark.parametrize(
    "init", [True, False, "gaussian", "orthogonal", "eva", "pissa", "olora", "loftq", "corda", "lora_ga"]
)
def test_the_same_inits_are_refused_with_the_same_advice(init: bool | str, tmp_path: Path) -> None:
    fields = {"r": 8, "lora_alpha": 16, "init_lora_weights": init}
    early, late = why_at_upload(fields), why_in_a_job(fields, tmp_path)
    assert (early is None) is (late is None) is (init in (True, False, "gaussian", "orthogonal", "eva")), (
        early,
        late,
    )
    if early is not None and late is not None:
        assert early.endswith(late)


Kind = type[NumericsError] | None
"""Of a refusal, in the numerics' terms; None where a file is taken."""

KINDS: Mapping[type[UnusableContent], Kind] = {
    BrokenAdapter: BrokenAdapterError,
    UnsupportedAdapter: UnsupportedAdapterError,
}


def refusals(folder: Path, config: bytes = CONFIG, model: bytes | None = None) -> tuple[Kind, Kind]:
    """How the adapter is refused at the upload, and how in a job."""
    early: Kind = None
    late: Kind = None
    files = {"adapter_config.json": config} | ({} if model is None else {"adapter_model.safetensors": model})
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        for name, content in files.items():
            check_file(name, io.BytesIO(content))
    except UnusableContent as refusal:
        early = KINDS[type(refusal)]
    try:
        read = LoraConfig.read(folder / "adapter_config.json")
        if model is not None:
            AdapterLayout.read(folder / "adapter_model.safetensors", read)
    except NumericsError as refusal:
        late = type(refusal)
    return early, late


NUMBERS: list[object] = [
    1e39,
    1e-39,
    2**31,
    10**4000,
    *(-16, -1, 0, 1, 8, 10**400, 0.5, 2.0, 1e300, float("nan"), float("inf")),
    *("8", "0", "NaN", "many", None, True, False, [], [8], {}),
]
PATTERNS = [
    "q_proj",
    r".*\.1\..*",
    "",
    "(",
    "(?i)q_proj",
    "a)(b",
    "a{99999999999999}",
    "(" * 500 + ")" * 500,
]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: repr(number)[:20])
@pytest.mark.parametrize("field", ["r", "lora_alpha", "rank_pattern", "alpha_pattern"])
def test_the_same_numbers_are_refused(field: str, number: object, tmp_path: Path) -> None:
    value = {"q_proj": number} if field.endswith("pattern") else number
    config = json.dumps({"r": 8, "lora_alpha": 16, field: value}).encode()
    early, late = refusals(tmp_path, config)
    assert early is late


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern[:20])
@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_the_same_patterns_are_refused(field: str, pattern: str, tmp_path: Path) -> None:
    config = json.dumps({"r": 8, "lora_alpha": 16, field: {pattern: 4}}).encode()
    early, late = refusals(tmp_path, config)
    assert early is late


@pytest.mark.parametrize("value", [None, 0, 4, "", "q_proj", [], ["q_proj"], {}, {"q_proj": 4}])
@pytest.mark.parametrize("field", ["rank_pattern", "alpha_pattern"])
def test_what_is_no_object_of_patterns_is_refused_by_both(field: str, value: object, tmp_path: Path) -> None:
    early, late = refusals(tmp_path, json.dumps({"r": 8, "lora_alpha": 16, field: value}).encode())
    assert early is late


def test_more_patterns_than_are_looked_at_at_the_upload_are_left_to_the_job(tmp_path: Path) -> None:
    """Each of them costs the upload time; names cost none, however many."""
    names = {f"model.layers.{layer}.self_attn.q_proj": 4 for layer in range(400)}
    fields = {"r": 8, "lora_alpha": 16, "rank_pattern": names | {"(": 4}}
    assert refusals(tmp_path, json.dumps(fields).encode()) == (BrokenAdapterError, BrokenAdapterError)
    fields["rank_pattern"] = {"(" * 3000: 4}
    assert refusals(tmp_path, json.dumps(fields).encode()) == (None, BrokenAdapterError)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_same_encodings_are_refused(encoding: str, tmp_path: Path) -> None:
    early, late = refusals(tmp_path, CONFIG.decode().encode(encoding))
    assert early is late


MODULE = "base_model.model.model.layers.0.mlp.up_proj"
FACTORS = {f"{MODULE}.lora_A.weight": torch.ones(2, 4), f"{MODULE}.lora_B.weight": torch.ones(3, 2)}


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        (FACTORS, None),
        (FACTORS | {"base_model.model.lm_head.weight": torch.ones(3, dtype=torch.int8)}, None),
        (
            FACTORS | {"base_model.model.embed_tokens.token_adapter.trainable_tokens_delta": torch.ones(1)},
            None,
        ),
        ({name: factor.bfloat16() for name, factor in FACTORS.items()}, None),
        (FACTORS | {f"{MODULE}.lora_magnitude_vector": torch.ones(3)}, UnsupportedAdapterError),
        (FACTORS | {f"{MODULE}.lora_embedding_A": torch.ones(2, 4)}, UnsupportedAdapterError),
        (FACTORS | {f"{MODULE}.lora_B.bias": torch.ones(3)}, UnsupportedAdapterError),
        (FACTORS | {f"{MODULE}.lora_A.bias": torch.ones(3)}, BrokenAdapterError),
        (FACTORS | {f"{MODULE}.lora_A": torch.ones(2, 4)}, BrokenAdapterError),
        (
            {name.replace(".weight", ".default.weight"): each for name, each in FACTORS.items()},
            BrokenAdapterError,
        ),
        ({name: factor[..., None, None] for name, factor in FACTORS.items()}, UnsupportedAdapterError),
        ({name: factor.flatten() for name, factor in FACTORS.items()}, UnsupportedAdapterError),
        ({name: factor.to(torch.int8) for name, factor in FACTORS.items()}, BrokenAdapterError),
        (FACTORS | {f"{MODULE}.lora_B.weight": torch.ones(0)}, BrokenAdapterError),
        (FACTORS | {f"{MODULE}.lora_B.weight": torch.ones(3, 1)}, BrokenAdapterError),
        ({f"{MODULE}.lora_B.weight": torch.ones(3, 2)}, BrokenAdapterError),
        ({"base_model.model.lm_head.weight": torch.ones(3)}, BrokenAdapterError),
    ],
)
def test_the_same_tensors_are_refused(tensors: dict[str, torch.Tensor], kind: Kind, tmp_path: Path) -> None:
    assert refusals(tmp_path, model=save(tensors)) == (kind, kind)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.tuples(
            st.sampled_from(["q_proj", "base_model.model.v_proj", "lora_A"]),
            st.sampled_from(["lora_A", "lora_B", "lora_embedding_B", "lora_C"]),
            st.sampled_from([".weight", ".bias", ".default.weight", ""]),
        ).map(lambda parts: f"{parts[0]}.{parts[1]}{parts[2]}"),
        st.sampled_from([(2, 2), (2, 2, 1, 1), (2,), (0, 2), (2, 0)]).map(torch.ones),
        max_size=4,
    )
)
def test_any_tensors_are_taken_by_both_or_by_none(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, torch.Tensor]
) -> None:
    early, late = refusals(tmp_path_factory.mktemp("adapter"), model=save(tensors))
    assert (early is None) is (late is None), (early, late)
