"""Any trainer that writes PEFT adapters, and one line more: here a plain PyTorch loop, not changed for it.

Start `nextrapolate-server`, then run `python examples/watch_any_trainer.py --out run`. That line starts
`nextrapolate watch run` beside it, which posts the checkpoints, writes the extrapolated adapter to
run/extrapolated-200, and says how to go on from there: here by `--adapter run/extrapolated-200 --out run-2`.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import load_dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl_grpo import MODEL, exact, sums


def log_probabilities(model: Any, asked: Any, tokens: Tensor) -> Tensor:
    """Return those of the completions' tokens, (batch, completion); prompts are padded on the left."""
    length = asked["input_ids"].shape[1]
    mask = pad(asked["attention_mask"], (0, tokens.shape[1] - length), value=1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits: Tensor = model(tokens, attention_mask=mask, position_ids=positions).logits[:, length - 1 : -1]
    return logits.log_softmax(-1).gather(-1, tokens[:, length:, None]).squeeze(-1)


def main() -> None:
    """Train by REINFORCE, a checkpoint every few steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=MODEL, help="name on the Hub, or a folder")
    parser.add_argument("--dataset", help="name on the Hub, or a folder; columns: prompt, answer")
    parser.add_argument("--adapter", help="folder of an adapter to go on from")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--completion-tokens", type=int, default=5)
    parser.add_argument("--jump-at", type=int, default=150)
    parser.add_argument("--horizon-steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("run"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    schedule = [f"--jump-at={options.jump_at}", f"--horizon-steps={options.horizon_steps}", "--every=1"]
    nextrapolate = Path(sys.executable).with_name("nextrapolate")
    watch = subprocess.Popen([nextrapolate, "watch", options.out, *schedule])

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(options.model, padding_side="left")
    base: Any = AutoModelForCausalLM.from_pretrained(options.model)
    if options.adapter:
        model: Any = PeftModel.from_pretrained(base, options.adapter, is_trainable=True)
    else:
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(base, lora)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)
    data = load_dataset(options.dataset, split="train") if options.dataset else sums()
    batches = data.shuffle(seed=0).batch(128)
    for step in range(1, options.steps + 1):
        batch = batches[step % len(batches)]
        asked = tokenizer(batch["prompt"], return_tensors="pt", padding=True)
        length = asked["input_ids"].shape[1]
        tokens = model.generate(**asked, do_sample=True, top_k=0, max_new_tokens=options.completion_tokens)
        texts = tokenizer.batch_decode(tokens[:, length:], skip_special_tokens=True)
        reward = torch.tensor(exact(texts, batch["answer"]))
        is_written = tokens[:, length:] != tokenizer.pad_token_id
        written = is_written * log_probabilities(model, asked, tokens)
        loss = -((reward - reward.mean()) * written.sum(-1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % options.save_every == 0:
            model.save_pretrained(options.out / f"checkpoint-{step}")
            print(f"step {step}: reward {reward.mean():.3f}", flush=True)
    if options.steps < options.jump_at:
        watch.terminate()
    watch.wait()


if __name__ == "__main__":
    main()
