"""Two packages that may not know each other read adapter_config.json: both refuse the same of it, and why.

The store refuses at the upload, the numerics when a job reads what never went through one.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import peft
import pytest

from nextrapolate_numerics import NumericsError, UnsupportedAdapterError
from nextrapolate_numerics.series import LoraConfig
from nextrapolate_store.content.adapter_config import check_fields
from nextrapolate_store.errors import UnsupportedAdapter, UnusableContent

REFUSED = {
    "alora_invocation_tokens", "arrow_config", "bias", "init_lora_weights", "kasa_config",
    "layer_replication", "lora_bias", "monteclora_config", "peft_type", "target_parameters",
    "use_bdlora", "use_dora", "use_qalora",
}  # fmt: skip
FIELDS = REFUSED | {field.name for field in dataclasses.fields(peft.LoraConfig)}


def why_at_upload(fields: dict[str, Any]) -> str | None:
    """Why the store refuses the feature; None where it does not."""
    try:
        check_fields(fields)
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


@pytest.mark.parametrize("init", [True, False, "gaussian", "pissa", "olora", "loftq", "eva", "corda"])
def test_the_same_inits_are_refused_with_the_same_advice(init: bool | str, tmp_path: Path) -> None:
    fields = {"r": 8, "lora_alpha": 16, "init_lora_weights": init}
    early, late = why_at_upload(fields), why_in_a_job(fields, tmp_path)
    assert (early is None) is (late is None) is (init in (True, False, "gaussian")), (early, late)
    if early is not None and late is not None:
        assert early.endswith(late)
