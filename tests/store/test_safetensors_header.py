import math
import time
from pathlib import Path

import pytest
from fixtures.adapter_bytes import header, model_bytes, with_header, with_header_text
from hypothesis import given, settings
from hypothesis import strategies as st

from nextrapolate_store.content.safetensors_header import MAX_HEADER_BYTES, HeaderCheck
from nextrapolate_store.errors import BrokenAdapter, UnsupportedAdapter, UnusableContent

A = "base_model.model.q_proj.lora_A.weight"
B = "base_model.model.q_proj.lora_B.weight"


def check(content: bytes, piece_bytes: int = 1 << 16) -> None:
    checked = HeaderCheck()
    for start in range(0, len(content), piece_bytes):
        checked.feed(content[start : start + piece_bytes])
    checked.finish()


@pytest.mark.parametrize("piece_bytes", [1, 7, 1 << 16])
def test_what_peft_writes_is_taken(run_folder: Path, piece_bytes: int) -> None:
    check((run_folder / "checkpoint-10" / "adapter_model.safetensors").read_bytes(), piece_bytes)


def changed(name: str, **entry: object) -> bytes:
    entries = header()
    entries[name] = {**entries.get(name, {}), **entry}
    return with_header(entries, bytes(56))


def renamed(before: str, after: str) -> bytes:
    return with_header(
        {after if name == before else name: entry for name, entry in header().items()}, bytes(56)
    )


@pytest.mark.parametrize(
    ("content", "field", "says"),
    [
        (b"", "header", "ends after 0 bytes"),
        (b"\x10", "header", "ends after 1 bytes"),
        (b"PK\x03\x04" + bytes(60), "header", "zip archive"),
        (b"\x80\x02}q\x00X" + bytes(60), "header", "pickle"),
        ((2**60).to_bytes(8, "little") + b"{}", "header", "at most"),
        ((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}", "header", "at most"),
        (with_header_text("[1]"), "header", "not a JSON object"),
        (with_header_text("{" + "[" * 50_000), "header", "not JSON"),
        (with_header({}), "header", "not a LoRA adapter"),
        (
            with_header({"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}),
            "header",
            "not a LoRA adapter",
        ),
        (model_bytes()[:-1], "data_offsets", "truncated"),
        (model_bytes() + b"\0", "data_offsets", "trailing bytes"),
        (with_header_text("[1]".encode("utf-16-le").decode("latin-1")), "header", "not JSON"),
        (with_header({**header(), "__metadata__": {"format": 1}}, bytes(56)), "__metadata__", "texts alone"),
        (with_header({**header(), "__metadata__": []}, bytes(56)), "__metadata__", "texts alone"),
        (with_header({**header(), "__metadata__": {"a": math.nan}}, bytes(56)), "header", "NaN is no JSON"),
        (with_header_text('{"a": {}, "a": {}}'), "'a'", "twice"),
        (with_header_text('{"a": {"dtype": "F32", "dtype": "F16"}}'), "'dtype'", "twice"),
        (renamed(A, "../../etc/passwd"), "'../../etc/passwd'", "not the name of a tensor"),
        (renamed(A, "x..lora_A.weight"), "'x..lora_A.weight'", "not the name of a tensor"),
        (renamed(A, "\ud800"), "'\\ud800'", "not the name of a tensor"),
        (renamed(A, "other.lora_A.weight"), "other.lora_A.weight", "has no partner"),
        (renamed(B, "plain.weight"), A, "has no partner"),
        (changed(A, dtype="Q4"), f"{A}.dtype", "unknown dtype"),
        (changed(A, dtype="F64"), f"{A}.data_offsets", "offsets say otherwise"),
        (changed(A, shape=[2, 5]), f"{A}.data_offsets", "offsets say otherwise"),
        (changed(A, shape=[-2, -4]), A, "lacks a dtype"),
        (changed(A, shape=[True, 8]), A, "lacks a dtype"),
        (changed(A, shape=[2**63, 0]), A, "lacks a dtype"),
        (changed(A, shape=[10**4000, 10**4000]), A, "lacks a dtype"),
        (changed(A, shape=[2**62] * 100_000), A, "lacks a dtype"),
        (changed(A, shape=[2**62] * 8), f"{A}.data_offsets", "offsets say otherwise"),
        (changed(A, data_offsets=[0, 10**4000]), f"{A}.data_offsets", "offsets say otherwise"),
        (changed(A, data_offsets=[0]), A, "lacks a dtype"),
        (changed(A, data_offsets=[False, 32]), A, "lacks a dtype"),
        (changed(A, data_offsets=[8, 40]), f"{A}.data_offsets", "leaves a gap"),
        (changed(B, data_offsets=[0, 24]), f"{A}.data_offsets", "overlaps"),
        (changed(A, shape=[4, 2]), f"{A}.shape", "do not share a rank"),
        (
            renamed(A, A.replace(".weight", ".default.weight")),
            A.replace(".weight", ".default.weight"),
            "not named as PEFT saves it",
        ),
        (changed(A, dtype="I32"), f"{A}.dtype", "save it as float32"),
    ],
)
def test_what_is_wrong_is_named(content: bytes, field: str, says: str) -> None:
    with pytest.raises(BrokenAdapter, match=says) as refused:
        check(content)
    assert refused.value.field == field


def test_a_large_header_with_a_name_twice_is_refused_in_no_time() -> None:
    names = [f"{number:x}" for number in range(500_000)]
    content = with_header_text("{" + ",".join(f'"{name}":0' for name in [*names, "7a11f"]) + "}")
    assert len(content) > MAX_HEADER_BYTES / 2
    started = time.monotonic()
    with pytest.raises(BrokenAdapter, match="twice") as refused:
        check(content)
    assert refused.value.field == "'7a11f'"
    assert time.monotonic() - started < 120, "one look at each name takes a second, one for each pair hours"


@pytest.mark.parametrize(
    ("name", "feature", "advice"),
    [
        ("q.lora_magnitude_vector", "DoRA", "train with use_dora=False"),
        ("q.lora_B.bias", "lora_bias", "train with lora_bias=False"),
        ("embed_tokens.lora_embedding_A", "LoRA on an embedding", "target linear layers only"),
    ],
)
def test_features_are_refused_by_name(name: str, feature: str, advice: str) -> None:
    entries = {**header(), name: {"dtype": "F32", "shape": [0], "data_offsets": [56, 56]}}
    with pytest.raises(UnsupportedAdapter, match=f"{feature} .*{name}.*; {advice}") as refused:
        check(with_header(entries, bytes(56)))
    assert refused.value.field == name


def test_convolutions_are_refused() -> None:
    entries = header()
    for entry, shape in ((entries[A], [2, 4, 1, 1]), (entries[B], [3, 2, 1, 1])):
        entry["shape"] = shape
    with pytest.raises(UnsupportedAdapter, match=r"on a convolution .* target linear layers only") as refused:
        check(with_header(entries, bytes(56)))
    assert refused.value.field == f"{A}.shape"


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 100))
def test_damage_anywhere_is_refused_or_harmless(damage: bytes, start: int, length: int) -> None:
    content = model_bytes()
    damaged = content[:start] + damage + content[start + length :]
    try:
        check(damaged)
    except UnusableContent:
        return
    assert len(damaged) >= 8


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from([A, B]), inner),
    )
)
def test_any_json_is_answered(document: object) -> None:
    with pytest.raises(UnusableContent):
        check(with_header(document))
