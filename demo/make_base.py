"""Train a base model; the one that demo/base/ ships: `python -m demo.make_base` (minutes on two cores).

It holds the right behaviour among others, as a pretrained one does: it sees every sum answered in four ways,
a quarter of them right. GRPO can then elicit the right one in small, steady steps.
"""

import argparse
import random
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from transformers import Qwen2Config, Qwen2ForCausalLM, set_seed

from demo.evaluate import encode, evaluate
from demo.language import SPECIAL, VOCABULARY, make_tokenizer
from demo.task import ADDITION, Task

BASE = Path(__file__).parent / "base"
CONSOLE = Console()


def make_model(hidden: int = 128, layers: int = 4, intermediate: int = 384) -> Qwen2ForCausalLM:
    """Return an untrained Qwen2 for the 32 characters of the language; weights from torch's random state."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(VOCABULARY),
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            # Qwen2's own 0.02 leaves so narrow a model on the plateau of its start for hundreds of steps.
            initializer_range=0.05,
            pad_token_id=VOCABULARY.index(SPECIAL["pad_token"]),
            bos_token_id=VOCABULARY.index(SPECIAL["bos_token"]),
            eos_token_id=VOCABULARY.index(SPECIAL["eos_token"]),
        )
    )


def train(
    task: Task,
    steps: int = 3000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    **size: int,
) -> Qwen2ForCausalLM:
    """Train from scratch on the task's mixture: AdamW, the learning rate falling linearly to 0.

    `size` is as `make_model` takes it.
    """
    set_seed(seed)
    choose = random.Random(seed)  # noqa: S311 (data, not a secret)
    tokenizer, (questions, held_out) = make_tokenizer(), task.split()
    model = make_model(**size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    shares = [kind.share for kind in task.kinds]
    for step in track(range(1, steps + 1), description=f"base of {task.name}", console=CONSOLE):
        batch = choose.choices(questions, k=batch_size)
        kinds = choose.choices(task.kinds, weights=shares, k=batch_size)
        answers = [kind.answer(question) for question, kind in zip(batch, kinds, strict=True)]
        tokens, labels = encode(tokenizer, batch, answers)
        loss = model(input_ids=tokens, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 250 == 0:
            accuracy = evaluate(model, tokenizer, task, held_out).accuracy
            CONSOLE.print(f"step {step}: loss {loss.item():.4f}, {accuracy}")
    return model


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=BASE)
    arguments = parser.parse_args()
    train(ADDITION, seed=arguments.seed).save_pretrained(arguments.out)
    make_tokenizer().save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
