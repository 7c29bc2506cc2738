"""adapter_config.json against PEFT's own reading, and each refusal by its name."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from nextrapolate_numerics import BrokenAdapterError, UnsupportedAdapterError
from nextrapolate_numerics.series import LoraConfig

MODULES = [f"model.layers.{i}.{part}" for i in (1, 11) for part in ("self_attn.q_proj", "mlp.down_proj")]
PATTERNS = ["q_proj", "self_attn.q_proj", "layers.1.mlp.down_proj", r".*\.1\..*", "proj", "model.layers.11.*"]


def config(folder: Path, **fields: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16} | fields))
    return path


@settings(deadline=None, max_examples=80)
@given(
    ranks=st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 64)),
    alphas=st.dictionaries(st.sampled_from(PATTERNS), st.integers(1, 64)),
    use_rslora=st.booleans(),
    module=st.sampled_from(MODULES),
)
def test_scaling_is_pefts(
    ranks: dict[str, int],
    alphas: dict[str, int],
    use_rslora: bool,
    module: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = config(
        tmp_path_factory.mktemp("c"), rank_pattern=ranks, alpha_pattern=alphas, use_rslora=use_rslora
    )
    read = LoraConfig.read(path)
    rank = ranks.get(get_pattern_key(list(ranks), module), 8)
    alpha = alphas.get(get_pattern_key(list(alphas), module), 16)
    assert read.rank(module) == rank
    assert read.scaling(module) == alpha / (math.sqrt(rank) if use_rslora else rank)


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "eva"])
def test_plain_inits_are_read(init: bool | str, tmp_path: Path) -> None:
    assert LoraConfig.read(config(tmp_path, init_lora_weights=init)).starts_at_base is (init is not False)


@pytest.mark.parametrize(
    ("fields", "feature"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias='all'"),
        ({"bias": "lora_only"}, "bias='lora_only'"),
        ({"target_parameters": ["mlp.experts.down_proj"]}, "target_parameters"),
        ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication"),
        ({"use_qalora": True}, "QA-LoRA"),
        ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA"),
        ({"arrow_config": {"top_k": 1}}, "Arrow"),
        ({"kasa_config": {"beta": 1}}, "KaSA"),
        ({"monteclora_config": {"num_samples": 8}}, "MonteCLoRA"),
        ({"peft_type": "IA3"}, "peft_type IA3"),
        *(
            ({"init_lora_weights": init}, init)
            for init in ("pissa", "pissa_niter_16", "olora", "loftq", "corda", "lora_ga")
        ),
    ],
)
def test_features_are_refused_by_name(fields: dict[str, Any], feature: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedAdapterError, match=re.escape(feature)) as refusal:
        LoraConfig.read(config(tmp_path, **fields))
    assert len(refusal.value.why) > 10


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lora_alpha": 0}, "lora_alpha is 0"),
        ({"alpha_pattern": {"q_proj": 0}}, "lora_alpha is 0"),
        ({"lora_alpha": "many"}, "not a number"),
        ({"lora_alpha": None}, "not a number"),
        ({"r": 0}, "rank is 0"),
        ({"rank_pattern": {"q_proj": 0}}, "rank is 0"),
        ({"rank_pattern": ["q_proj"]}, "not a number"),
        ({"rank_pattern": {"(": 4}}, "not a regular expression"),
        ({"rank_pattern": {"(?i)q_proj": 4}}, "not a regular expression"),
        ({"rank_pattern": {"q{99999999999999}": 4}}, "not a regular expression"),
        ({"lora_alpha": 10**400}, "not a number"),
        ({"lora_alpha": 1e39}, r"lora_alpha is 1e\+39, but must be positive and within float32"),
        ({"alpha_pattern": {"q_proj": 1e-39}}, "lora_alpha is 1e-39"),
        ({"r": 10**4000}, "the rank is 10000000000000000000, but must"),
        ({"rank_pattern": {"q_proj": 2**31}}, "the rank is 2147483648"),
        ({"r": math.inf}, "not a number"),
    ],
)
def test_unusable_values_are_refused(fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenAdapterError, match=reason):
        LoraConfig.read(config(tmp_path, **fields))


def test_a_pattern_that_would_match_for_ever_is_refused(tmp_path: Path) -> None:
    read = LoraConfig.read(config(tmp_path, rank_pattern={"(a|aa)+b": 3}))
    assert read.rank("model.layers.0.aab") == 3
    assert LoraConfig.read(config(tmp_path, rank_pattern={"((a{500}){500}){500}": 3})).rank("q_proj") == 8
    for told in (read.rank, read.scaling):
        with pytest.raises(BrokenAdapterError, match=r"pattern '\(a\|aa\)\+b' takes too long to match a"):
            told("a" * 80)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"{", "JSON"), (b"\xff\xfe", "JSON"), (b"[1]", "JSON object"), (b"{}", "'r'")]
)
def test_unreadable_files_are_refused(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    path.write_bytes(content)
    with pytest.raises(BrokenAdapterError, match=reason):
        LoraConfig.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BrokenAdapterError, match=r"adapter_config\.json: the file is missing"):
        LoraConfig.read(tmp_path / "adapter_config.json")
