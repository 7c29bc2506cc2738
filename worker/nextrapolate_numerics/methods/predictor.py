"""NExt's predictor: encoders and a decoder, from a part of two deltas to the same part of a coming one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nextrapolate_numerics.progress import Progress


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


def predict(
    parts: Tensor,
    targets: Tensor,
    query: Tensor,
    training: Training,
    generator: torch.Generator,
    on_progress: Progress,
) -> Tensor:
    """Train a predictor from scratch, and ask it once.

    Args:
        parts: (inputs, q, l, d) float32 for q pairs of checkpoints and l modules.
        targets: (q, l, d).
        query: (inputs, l, d), the parts at the last checkpoint.
        training: sizes and schedule.
        generator: draws the initial weights.
        on_progress: told after each epoch.

    Returns:
        (l, d), the predicted parts of the coming delta.
    """
    on_gpu = parts.device.type == "cuda"
    predictor = Predictor(parts.shape[-1], len(parts), training.hidden_size, generator).to(parts.device)
    rate = torch.tensor(training.learning_rate, device=parts.device) if on_gpu else training.learning_rate
    optimizer = torch.optim.AdamW(predictor.parameters(), lr=rate, fused=True, capturable=on_gpu)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=training.epochs, eta_min=training.learning_rate / 10
    )

    def learn() -> None:
        # Eq. 9: the sum over entries and modules, the mean over checkpoints
        loss = (predictor(parts) - targets).abs().sum() / len(targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    epoch = _Recorded(learn) if on_gpu else learn
    for number in range(training.epochs):
        epoch()
        schedule.step()
        on_progress((number + 1) / training.epochs)
    with torch.no_grad():
        return predictor(query)  # type: ignore[no-any-return]


class _Recorded:
    """Work on a GPU whose launches are recorded once and then repeated: one by one they take longer than it.

    Args:
        work: the same operations on the same memory each time.
    """

    _WARM_UP = 3  # calls on a stream of their own, in which what is set up once is set up

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._calls = 0
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()

    def __call__(self) -> None:
        if self._calls < self._WARM_UP:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._work()
            torch.cuda.current_stream().wait_stream(self._stream)
        elif self._calls == self._WARM_UP:
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._work()
        if self._calls >= self._WARM_UP:
            self._graph.replay()
        self._calls += 1


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    bound = inputs**-0.5
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.uniform_(-bound, bound, generator=generator)
    return layer
