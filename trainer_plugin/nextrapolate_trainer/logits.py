"""Logits extrapolation: the line through the logits of two checkpoints, followed on (arXiv 2601.04537).

    l(t*) = l_2 + (t* - t_2) / (t_2 - t_1) (l_2 - l_1)

token by token while decoding, with both checkpoints as adapters of one model. No weights are extrapolated,
and each token costs two forward passes and two caches.

    tokens = generate(
        model, **tokenizer(prompts, padding=True, return_tensors="pt"),
        earlier=AdapterAt("step-100", 100), later=AdapterAt("step-150", 150), target_step=200,
        max_new_tokens=64,
    )
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from torch import LongTensor, Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from nextrapolate_trainer.errors import UnsupportedGenerationError

# options of generate() that change the later adapter's scores before they can be extrapolated, or that decode
# more than a token at a time, and the values at which they do nothing
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "guidance_scale": (None, 1),
    "repetition_penalty": (None, 1),
    "encoder_repetition_penalty": (None, 1),
    "sequence_bias": (None,),
    "exponential_decay_length_penalty": (None,),
    "assistant_model": (None,),
    "prompt_lookup_num_tokens": (None,),
}


@dataclass(frozen=True)
class AdapterAt:
    """A checkpoint, as an adapter of the model.

    Attributes:
        name: of the adapter in the model.
        step: training step of the checkpoint.
    """

    name: str
    step: int


class LogitsExtrapolation(LogitsProcessor):
    """Turns the scores of the active adapter into the extrapolated ones, with a cache of its own.

    For one call of generate(), whose active adapter is the later one. It has to come first among the
    processors: what goes before it goes into the extrapolation. Rows are followed by their tokens, so that
    beams may change places.

    Args:
        model: with both adapters.
        earlier: name of the other adapter.
        reach: (t* - t_2) / (t_2 - t_1), 0 or more.
        attention_mask: (b, n) of the prompts, 0 where they are padded, on the left.
        normalized: scores are log-probabilities, as in beam search, and are to be so again.
    """

    def __init__(
        self,
        model: PeftModel,
        earlier: str,
        *,
        reach: float,
        attention_mask: Tensor,
        normalized: bool = False,
    ) -> None:
        self._model = model
        self._earlier = earlier
        self._reach = reach
        self._prompt_mask = attention_mask
        self._normalized = normalized
        base = cast(PreTrainedModel, model.get_base_model())
        self._accepted = inspect.signature(base.forward).parameters.keys()
        self._cache = DynamicCache(config=base.config)
        self._seen: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """From the scores (b, vocabulary) of the later adapter after `input_ids` (b, n) to the extrapolated.

        Raises:
            UnsupportedGenerationError: the tokens do not go on from those of the call before.
        """
        earlier = self._forward(input_ids).to(scores)
        if self._normalized:
            earlier = earlier.log_softmax(dim=-1)
        # not l_2 + r (l_2 - l_1), which is NaN where l_2 is -inf, a forbidden token, and r is 0
        extrapolated = (1 + self._reach) * scores - self._reach * earlier
        return extrapolated.log_softmax(dim=-1) if self._normalized else extrapolated

    @torch.no_grad()
    def _forward(self, input_ids: Tensor) -> Tensor:
        """The earlier adapter's logits (b, vocabulary) of the coming token."""
        new_tokens = self._follow(input_ids)
        padding = input_ids.shape[1] - self._prompt_mask.shape[1]
        mask = torch.nn.functional.pad(self._prompt_mask, (0, padding), value=1)
        options = {"position_ids": (mask.cumsum(-1) - 1).clamp(min=0)[:, -new_tokens:], "logits_to_keep": 1}
        later = self._model.active_adapter
        self._model.set_adapter(self._earlier, inference_mode=True)
        try:
            outputs = self._model(
                input_ids=input_ids[:, -new_tokens:],
                attention_mask=mask,
                past_key_values=self._cache,
                use_cache=True,
                **{name: value for name, value in options.items() if name in self._accepted},
            )
        finally:
            self._model.set_adapter(later, inference_mode=True)
        logits: Tensor = outputs.logits[:, -1]
        return logits

    def _follow(self, input_ids: Tensor) -> int:
        """How many tokens are new; rows of the cache go where their tokens have gone."""
        before, self._seen = self._seen, input_ids
        if before is None:
            # several sequences of one prompt lie side by side
            self._prompt_mask = self._prompt_mask.repeat_interleave(
                len(input_ids) // len(self._prompt_mask), 0
            )
            return input_ids.shape[1]
        past = input_ids[:, :-1]
        if past.shape != before.shape:
            raise UnsupportedGenerationError(
                "this extrapolation follows a single call of generate(), token by token: make a new one "
                "for each call"
            )
        if not torch.equal(past, before):
            came_from = (past[:, None] == before).all(dim=-1)
            came_from &= (self._prompt_mask[:, None] == self._prompt_mask).all(dim=-1)
            if not came_from.any(dim=-1).all():
                raise UnsupportedGenerationError("the tokens do not continue those of the previous call")
            self._cache.reorder_cache(cast(LongTensor, came_from.int().argmax(dim=-1)))
        return 1


def generate(
    model: PeftModel,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    earlier: AdapterAt,
    later: AdapterAt,
    target_step: int,
    **options: Any,
) -> Any:
    """Let the model generate from extrapolated logits: greedily, by sampling, or by beam search.

    The model is as it was afterwards: its active adapter, its mode, and what of it is trainable.

    Args:
        model: a causal language model with both adapters.
        input_ids: (b, n) prompts, padded on the left.
        attention_mask: (b, n), 0 where they are padded.
        earlier: the checkpoint at t_1.
        later: the checkpoint at t_2 > t_1.
        target_step: t* >= t_2.
        options: of the model's generate(); its answer is returned.

    Raises:
        UnsupportedGenerationError: steps that do not ascend, an adapter that the model does not have, or an
            option that cannot be extrapolated.
    """
    _check(model, earlier, later, target_step, options)
    config = options.get("generation_config") or model.generation_config
    extrapolation = LogitsExtrapolation(
        model,
        earlier.name,
        reach=(target_step - later.step) / (later.step - earlier.step),
        attention_mask=attention_mask,
        normalized=(options.get("num_beams", config.num_beams) or 1) > 1,
    )
    processors = LogitsProcessorList([extrapolation, *(options.pop("logits_processor", None) or [])])
    with _inference(model, later.name):
        return model.generate(  # type: ignore[no-untyped-call]
            input_ids=input_ids, attention_mask=attention_mask, logits_processor=processors, **options
        )


def _check(
    model: PeftModel, earlier: AdapterAt, later: AdapterAt, target_step: int, options: Mapping[str, Any]
) -> None:
    for adapter in (earlier, later):
        if adapter.name not in model.peft_config:
            raise UnsupportedGenerationError(
                f"the model has no adapter {adapter.name!r}: load it with load_adapter; it has "
                f"{', '.join(sorted(model.peft_config))}"
            )
    if not earlier.step < later.step <= target_step:
        raise UnsupportedGenerationError(
            "the steps must ascend from the earlier adapter to the later one to the target: they are "
            f"{earlier.step}, {later.step} and {target_step}"
        )
    if model.config.is_encoder_decoder:
        raise UnsupportedGenerationError("only causal language models are supported, not encoder-decoders")
    config = options.get("generation_config") or model.generation_config
    for name, neutral in _REFUSED.items():
        value = options.get(name, getattr(config, name, None))
        if value not in neutral:
            raise UnsupportedGenerationError(f"{name}={value!r} cannot be extrapolated: leave it out")


@contextmanager
def _inference(model: PeftModel, adapter: str) -> Iterator[None]:
    """The adapter active and nothing dropped out; then the model as it was."""
    active, training = model.active_adapter, model.training
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    model.set_adapter(adapter, inference_mode=True)
    try:
        yield
    finally:
        model.set_adapter(active)
        for parameter, required in trainable:
            parameter.requires_grad_(required)
        model.train(training)
