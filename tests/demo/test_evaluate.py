"""The accuracies come from one forward pass: generation says the same, slowly and with noise."""

import math

import pytest
import torch
from demo.evaluate import evaluate
from demo.language import make_tokenizer
from demo.make_base import BASE, make_model
from demo.make_base import train as train_base
from demo.task import ADDITION
from transformers import Qwen2ForCausalLM


@pytest.fixture(scope="module")
def base() -> Qwen2ForCausalLM:
    torch.set_num_threads(1)
    return Qwen2ForCausalLM.from_pretrained(BASE)


def generated_accuracy(model: Qwen2ForCausalLM, questions: list[str], sample: bool) -> float:
    tokenizer = make_tokenizer()
    prompts = tokenizer(questions, return_tensors="pt", padding=True)
    tokens = model.generate(  # type: ignore[misc]
        **prompts,
        max_new_tokens=ADDITION.max_answer_tokens,
        do_sample=sample,
        temperature=1.0 if sample else None,
        top_k=0,
    )
    texts = tokenizer.batch_decode(tokens[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    rewards = ADDITION.exact_match(questions, texts)
    return sum(reward or 0.0 for reward in rewards) / len(questions)


def test_sampled_accuracy_is_what_sampling_gives(base: Qwen2ForCausalLM) -> None:
    _, questions = ADDITION.split(400)
    torch.manual_seed(0)
    expected = evaluate(base, make_tokenizer(), ADDITION, questions).accuracy.sampled
    sampled = generated_accuracy(base, questions * 4, sample=True)
    assert abs(sampled - expected) < 4 * math.sqrt(expected * (1 - expected) / 1600)


def test_greedy_accuracy_is_what_greedy_decoding_gives(base: Qwen2ForCausalLM) -> None:
    _, questions = ADDITION.split(400)
    assert evaluate(base, make_tokenizer(), ADDITION, questions).accuracy.greedy == generated_accuracy(
        base, questions, sample=False
    )


def test_evaluating_leaves_model_and_random_state_alone(base: Qwen2ForCausalLM) -> None:
    base.train()
    before = torch.get_rng_state()
    evaluate(base, make_tokenizer(), ADDITION, ADDITION.split(10)[1])
    assert base.training
    assert torch.equal(torch.get_rng_state(), before)


def test_the_shipped_base_holds_the_right_answer_among_others(base: Qwen2ForCausalLM) -> None:
    assert evaluate(base, make_tokenizer(), ADDITION, ADDITION.split()[1]).accuracy.sampled == pytest.approx(
        0.25, abs=0.01
    )
    shapes = {name: tensor.shape for name, tensor in make_model().state_dict().items()}
    assert {name: tensor.shape for name, tensor in base.state_dict().items()} == shapes


def test_the_base_is_made_from_its_seed() -> None:
    first, second = (train_base(ADDITION, steps=2, batch_size=8, seed=5).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
