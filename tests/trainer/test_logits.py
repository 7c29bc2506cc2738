"""Logits extrapolation against the formula, computed without any cache on whole sequences."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from fixtures.tiny_qwen2 import EOS, PAD, tiny_qwen2
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
)

from nextrapolate_trainer.errors import UnsupportedGenerationError
from nextrapolate_trainer.logits import AdapterAt, LogitsExtrapolation, generate

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

VOCABULARY = 17
EARLIER, LATER = AdapterAt("first", 100), AdapterAt("second", 150)
PROMPTS = torch.tensor([[PAD, PAD, 5, 6], [PAD, 7, 8, 9], [5, 6, 7, 8]])
MASK = (PROMPTS != PAD).long()


def qwen2() -> PreTrainedModel:
    return tiny_qwen2(VOCABULARY, max_position_embeddings=32, initializer_range=0.5)


def gpt2() -> PreTrainedModel:
    """Positions are learnt here: a wrong one shows, where rotary ones only see differences."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=32,
            initializer_range=0.5,
            pad_token_id=PAD,
            eos_token_id=EOS,
            bos_token_id=None,
        )
    )


TARGETS: dict[Callable[[], PreTrainedModel], dict[str, Any]] = {
    qwen2: {"target_modules": ["q_proj", "v_proj", "down_proj"]},
    gpt2: {"target_modules": ["c_attn"], "fan_in_fan_out": True},
}


def two_adapters(base: Callable[[], PreTrainedModel]) -> PeftModel:
    torch.manual_seed(0)
    lora = LoraConfig(r=2, init_lora_weights=False, lora_dropout=0.5, task_type="CAUSAL_LM", **TARGETS[base])
    model = get_peft_model(base(), lora, adapter_name=EARLIER.name)
    model.add_adapter(LATER.name, lora)
    assert isinstance(model, PeftModel)
    return model.eval()


@pytest.fixture(scope="module", params=[qwen2, gpt2], ids=["rotary", "learnt"])
def model(request: pytest.FixtureRequest) -> PeftModel:
    return two_adapters(request.param)


def logits_of(model: PeftModel, adapter: str, tokens: Tensor, mask: Tensor) -> Tensor:
    """The whole sequences at once, no cache: logits of the token after the last."""
    model.set_adapter(adapter)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        outputs = model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False)
    logits: Tensor = outputs.logits[:, -1]
    return logits


def formula(model: PeftModel, tokens: Tensor, mask: Tensor, target: int) -> Tensor:
    first, second = (logits_of(model, adapter.name, tokens, mask) for adapter in (EARLIER, LATER))
    return second + (target - LATER.step) / (LATER.step - EARLIER.step) * (second - first)


class Oracle(LogitsProcessor):
    """Puts the formula in the place of whatever generate() found."""

    def __init__(self, model: PeftModel, target: int, *, normalized: bool) -> None:
        self.model = model
        self.target = target
        self.normalized = normalized

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        mask = MASK.repeat_interleave(len(input_ids) // len(MASK), dim=0)
        mask = torch.cat([mask, torch.ones_like(input_ids[:, MASK.shape[1] :])], dim=1)
        logits = formula(self.model, input_ids, mask, self.target)
        self.model.set_adapter(LATER.name)
        return logits.log_softmax(dim=-1) if self.normalized else logits


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": True, "temperature": 0.7, "top_p": 0.9},
        {"do_sample": True, "num_return_sequences": 3, "top_k": 0},
        {"num_beams": 4, "num_return_sequences": 2},
        {"num_beams": 3, "do_sample": True, "top_k": 0},
        {"do_sample": False, "use_cache": False},
    ],
    ids=["greedy", "sampled", "several", "beams", "sampled beams", "no cache"],
)
@pytest.mark.parametrize("target", [150, 200, 350])
def test_generation_is_that_of_the_formula(model: PeftModel, options: dict[str, Any], target: int) -> None:
    """Prompts of three lengths, rows that end before others: token for token, and score for score."""
    answer = {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 8, **options}
    oracle = Oracle(model, target, normalized=options.get("num_beams", 1) > 1)
    torch.manual_seed(1)
    wanted = model.generate(  # type: ignore[no-untyped-call]
        input_ids=PROMPTS, attention_mask=MASK, logits_processor=LogitsProcessorList([oracle]), **answer
    )
    torch.manual_seed(1)
    found = generate(
        model, input_ids=PROMPTS, attention_mask=MASK, earlier=EARLIER, later=LATER, target_step=target,
        **answer,
    )  # fmt: skip
    assert torch.equal(found.sequences, wanted.sequences)
    assert len(found.scores) == len(wanted.scores)
    for one, other in zip(found.scores, wanted.scores, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_the_tokens_are_the_formulas_own(model: PeftModel) -> None:
    """Greedy decoding without generate(), and not those of either adapter."""
    tokens, mask = PROMPTS, MASK
    for _ in range(6):
        best = formula(model, tokens, mask, 300).argmax(dim=-1, keepdim=True)
        tokens, mask = torch.cat([tokens, best], dim=1), torch.nn.functional.pad(mask, (0, 1), value=1)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    found = generate(
        model,
        input_ids=PROMPTS,
        attention_mask=MASK,
        earlier=EARLIER,
        later=LATER,
        target_step=300,
        **options,
    )
    assert torch.equal(found, tokens)
    for adapter in (EARLIER, LATER):
        model.set_adapter(adapter.name)
        alone = model.generate(  # type: ignore[no-untyped-call]
            input_ids=PROMPTS, attention_mask=MASK, **options
        )
        assert not torch.equal(alone, found)


def test_tokens_that_are_forbidden_stay_so(model: PeftModel) -> None:
    found = generate(
        model, input_ids=PROMPTS, attention_mask=MASK, earlier=EARLIER, later=LATER, target_step=150,
        max_new_tokens=6, do_sample=False, suppress_tokens=[EOS, 3, 4],
        return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    for scores in found.scores:
        assert bool((scores[:, [EOS, 3, 4]] == -torch.inf).all())
        assert not scores.isnan().any()


def test_the_model_is_as_it_was() -> None:
    model = two_adapters(qwen2)
    model.set_adapter(EARLIER.name)
    model.train()
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert any(before.values())

    def check() -> None:
        assert model.active_adapter == EARLIER.name
        assert model.training
        assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before

    for options in ({"max_new_tokens": 2}, {"max_new_tokens": -1}):
        try:
            generate(
                model, input_ids=PROMPTS, attention_mask=MASK, earlier=EARLIER, later=LATER,
                target_step=200, do_sample=False, **options,
            )  # fmt: skip
        except ValueError:
            assert options["max_new_tokens"] < 0
        check()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"earlier": AdapterAt("third", 100)}, "no adapter 'third'.* first, second"),
        ({"earlier": AdapterAt("first", 150)}, "steps must ascend.* 150, 150 and 200"),
        ({"target_step": 140}, "steps must ascend.* 100, 150 and 140"),
        ({"repetition_penalty": 1.2}, "repetition_penalty=1.2 cannot be extrapolated: leave it out"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens=3 cannot be extrapolated"),
    ],
)
def test_what_cannot_be_extrapolated_is_refused(model: PeftModel, changes: dict[str, Any], says: str) -> None:
    arguments: dict[str, Any] = {"earlier": EARLIER, "later": LATER, "target_step": 200, **changes}
    with pytest.raises(UnsupportedGenerationError, match=says):
        generate(model, input_ids=PROMPTS, attention_mask=MASK, max_new_tokens=2, **arguments)


@pytest.mark.parametrize(
    ("tokens", "says"),
    [(PROMPTS, "make a new one for each call"), (torch.full((3, 5), EOS), "do not continue")],
)
def test_a_processor_is_for_one_generation(model: PeftModel, tokens: Tensor, says: str) -> None:
    model.set_adapter(LATER.name)
    processor = LogitsExtrapolation(model, EARLIER.name, reach=1.0, attention_mask=MASK)
    scores = torch.zeros(3, VOCABULARY)
    processor(PROMPTS, scores)
    with pytest.raises(UnsupportedGenerationError, match=says):
        processor(tokens, scores)
