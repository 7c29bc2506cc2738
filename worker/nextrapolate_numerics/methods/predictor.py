"""NExt's predictor: encoders and a decoder, from a part of two deltas to the same part of a coming one."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nextrapolate_numerics.progress import Progress, part_of

_PORTION_ROWS = 512  # a CPU multiplies fewer at a time more slowly: it reads the weights for each portion
_PORTION_ENTRIES = 1 << 20  # fewer take little memory anyway


@dataclass(frozen=True)
class Training:
    """How a predictor is built and trained.

    Attributes:
        hidden_size: width of the bottlenecks.
        epochs: full-batch epochs.
        learning_rate: AdamW's peak rate; a cosine takes it to a tenth.
    """

    hidden_size: int
    epochs: int
    learning_rate: float


class Bottlenecks(nn.Module):
    """Linear(inputs, h) Linear(h, inputs) ReLU Linear(inputs, h) Linear(h, outputs), the reference's block.

    Args:
        inputs: length of what goes in.
        outputs: length of what comes out.
        hidden_size: h.
        generator: draws the initial weights.
    """

    def __init__(self, inputs: int, outputs: int, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.enter = _linear(inputs, hidden_size, generator)
        self.widen = _linear(hidden_size, inputs, generator)
        self.narrow = _linear(inputs, hidden_size, generator)
        self.leave = _linear(hidden_size, outputs, generator)

    def within(self, entered: Tensor) -> Tensor:
        """From the first bottleneck to the second, both (..., h)."""
        return self.narrow(torch.relu(self.widen(entered)))  # type: ignore[no-any-return]

    def forward(self, part: Tensor, onward: Tensor) -> Tensor:
        """From (..., inputs) through the block, and on by a matrix (h, outputs) to (..., h).

        Nothing bends between the last layer and the matrix. To take their product first, (h, h), saves a
        quarter of a predictor's work.
        """
        inner = self.within(self.enter(part))
        return nn.functional.linear(inner, onward @ self.leave.weight, onward @ self.leave.bias)


class Predictor(nn.Module):
    """h_G = E_G(s_G), h_L = E_L(s_L), s_T = D([h_G, h_L]) (NExt, arXiv 2604.11446, Eq. 8).

    Args:
        dimension: d, the length of one part: m for u, n for v, 1 for sigma.
        inputs: number of parts that go in, each with an encoder of its own.
        hidden_size: width of the bottlenecks.
        generator: draws the initial weights, as torch.nn.Linear does; on the CPU, so that devices agree.
    """

    def __init__(self, dimension: int, inputs: int, hidden_size: int, generator: torch.Generator) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(
            Bottlenecks(dimension, dimension, hidden_size, generator) for _ in range(inputs)
        )
        self.decoder = Bottlenecks(inputs * dimension, dimension, hidden_size, generator)

    def forward(self, parts: Tensor) -> Tensor:
        """From (inputs, ..., d) to (..., d)."""
        onward = self.decoder.enter.weight.chunk(len(self.encoders), dim=1)
        codes = [encoder(*each) for encoder, *each in zip(self.encoders, parts, onward, strict=True)]
        entered = torch.stack(codes).sum(dim=0) + self.decoder.enter.bias
        return self.decoder.leave(self.decoder.within(entered))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Lesson:
    """What one predictor learns from, and is asked; float32, on one device.

    Attributes:
        parts: (inputs, q, l, d) for q pairs of checkpoints and l modules.
        targets: (q, l, d).
        query: (inputs, l, d), the parts at the last checkpoint.
    """

    parts: Tensor
    targets: Tensor
    query: Tensor

    def portions(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Parts and targets of some pairs after the others, whose gradients add up to those of the batch.

        What is kept for the way back is ten times as long as what goes in. On a GPU they go all at once.
        """
        count = 1
        if self.targets.device.type == "cpu":
            rows, entries = self.targets.shape[:2].numel(), self.targets.numel()
            count = max(1, min(len(self.targets), rows // _PORTION_ROWS, entries // _PORTION_ENTRIES))
        parts, targets = self.parts.tensor_split(count, 1), self.targets.tensor_split(count)
        return zip(parts, targets, strict=True)


def predict(
    lessons: Iterable[Lesson],
    entries: int,
    training: Training,
    generator: torch.Generator,
    on_progress: Progress,
) -> Iterator[Tensor]:
    """Train a predictor from scratch for each lesson, one after the other, and ask it once.

    Args:
        lessons: made one after the other.
        entries: of all answers together.
        training: sizes and schedule.
        generator: draws the initial weights.
        on_progress: told after each epoch.

    Yields:
        (l, d) for each, the predicted parts of the coming delta.
    """
    done = 0.0
    for lesson in lessons:
        share = lesson.targets[0].numel() / entries
        yield _taught(Pupil(lesson, training, generator), training, part_of(on_progress, done, share))
        done += share
        del lesson  # before the next one is made


def predict_at_once(
    lessons: Iterable[Lesson], training: Training, generator: torch.Generator, on_progress: Progress
) -> list[Tensor]:
    """What `predict` gives, all predictors trained at once: each fills a small part of a GPU.

    Takes the memory of all of them.

    Args:
        lessons: on a GPU.
        training: sizes and schedule.
        generator: draws the initial weights, in the order of the lessons.
        on_progress: told when an epoch's launches are made.
    """
    pupils = [RecordedPupil(lesson, training, generator) for lesson in lessons]
    try:
        with _on_tensor_cores():
            for epoch in range(training.epochs):
                for pupil in pupils:
                    pupil.learn()
                on_progress((epoch + 1) / training.epochs)
        return [pupil.answer() for pupil in pupils]
    finally:
        for pupil in pupils:
            pupil.rest()


@contextmanager
def _on_tensor_cores() -> Iterator[None]:
    """Products of float32 in TF32: of 10 bits of each factor, summed in float32.

    An epoch takes half the time. After a thousand, answers differ by a tenth from those of whole float32, a
    little more than those of two libraries that add up in another order: training magnifies either.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _taught(pupil: "Pupil", training: Training, on_progress: Progress) -> Tensor:
    for epoch in range(training.epochs):
        pupil.learn()
        on_progress((epoch + 1) / training.epochs)
    return pupil.answer()


class Pupil:
    """A predictor that is being trained.

    Args:
        lesson: that it learns.
        training: sizes and schedule.
        generator: draws the initial weights.
        recorded: whether what the optimizer does is going to be recorded.
    """

    def __init__(
        self, lesson: Lesson, training: Training, generator: torch.Generator, *, recorded: bool = False
    ) -> None:
        device, inputs, d = lesson.parts.device, len(lesson.parts), lesson.parts.shape[-1]
        rate = training.learning_rate
        self._lesson = lesson
        self._predictor = Predictor(d, inputs, training.hidden_size, generator).to(device)
        self._optimizer = torch.optim.AdamW(
            self._predictor.parameters(),
            lr=torch.tensor(rate, device=device) if recorded else rate,
            fused=True,
            capturable=recorded,
        )
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self._optimizer, T_max=training.epochs, eta_min=rate / 10
        )

    def learn(self) -> None:
        """One epoch."""
        self._step()
        self._schedule.step()

    def answer(self) -> Tensor:
        """To the query, (l, d)."""
        with torch.no_grad():
            return self._predictor(self._lesson.query)  # type: ignore[no-any-return]

    def _step(self) -> None:
        self._optimizer.zero_grad()
        for parts, targets in self._lesson.portions():
            # Eq. 9: the sum over entries and modules, the mean over checkpoints
            missed = (self._predictor(parts) - targets).abs()
            (missed.sum() / len(self._lesson.targets)).backward()
        self._optimizer.step()


class RecordedPupil(Pupil):
    """One on a GPU, in a stream of its own beside others.

    There launches take longer than what is launched: those of an epoch are recorded once, and then repeated.
    """

    _LAUNCHED = 3  # epochs before the recording, in which what is set up once is set up

    def __init__(self, lesson: Lesson, training: Training, generator: torch.Generator) -> None:
        super().__init__(lesson, training, generator, recorded=True)
        self._epochs = 0
        self._recording = torch.cuda.CUDAGraph()
        self._stream = torch.cuda.Stream(lesson.parts.device)  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream(lesson.parts.device))

    def learn(self) -> None:
        """One epoch."""
        with torch.cuda.stream(self._stream):
            if self._epochs < self._LAUNCHED:
                self._step()
            else:
                if self._epochs == self._LAUNCHED:
                    with torch.cuda.graph(self._recording, stream=self._stream):
                        self._step()
                self._recording.replay()
            self._schedule.step()
        self._epochs += 1

    def rest(self) -> None:
        """Wait for what is launched: it may still write to memory that goes when this does."""
        self._stream.synchronize()

    def answer(self) -> Tensor:
        """To the query, (l, d)."""
        torch.cuda.current_stream(self._lesson.query.device).wait_stream(self._stream)
        return super().answer()


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    bound = inputs**-0.5
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.uniform_(-bound, bound, generator=generator)
    return layer
