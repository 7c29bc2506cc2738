"""Base models, one a task: trained from scratch when first asked for, and kept."""

from pathlib import Path
from tempfile import TemporaryDirectory

from demo import make_base
from demo.language import make_tokenizer
from demo.task import ADDITION, Task

BASES = Path(__file__).parent / "bases"
STEPS = {"modular": 2000, "sorting": 1000, "brackets": 1000, "addition-large": 1500}
"""Until held-out accuracy has settled: a rearrangement is learned sooner than arithmetic."""
SIZES = {"addition-large": {"hidden": 256, "layers": 8, "intermediate": 768}}
"""Where it is not the demo's: 6.3M parameters, where that has 0.8M."""


def base_of(task: Task, folder: Path = BASES) -> Path:
    """Return the folder of the task's base model: trained for minutes the first time, or the demo's own."""
    if task is ADDITION:
        return make_base.BASE
    base = folder / task.name
    if not base.exists():
        model = make_base.train(task, STEPS[task.name], **SIZES.get(task.name, {}))
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as unfinished:
            made = Path(unfinished) / task.name
            model.save_pretrained(made)
            make_tokenizer().save_pretrained(made)
            made.rename(base)
    return base
