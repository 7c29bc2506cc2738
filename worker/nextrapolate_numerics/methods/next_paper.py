"""NExt: nonlinear extrapolation of low-rank trajectories (arXiv 2604.11446, Algorithm 1).

A run's deltas are close to rank 1, and their leading triples move in a learnable way. From the triples of the
global and the local delta of a checkpoint a predictor, trained on this very run, gives the triple of the
delta one horizon ahead. Unlike the reference, signs are aligned before anything is learnt, modules that never
moved stay, everything is seeded, and all checkpoints make one batch.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from nextrapolate_numerics.errors import NonFiniteResultError, TooFewCheckpointsError
from nextrapolate_numerics.extraction import Evidence, Extraction, ModuleTriples, Seen
from nextrapolate_numerics.lowrank import Triple, unit
from nextrapolate_numerics.methods.predictor import Lesson, Training, predict, predict_at_once
from nextrapolate_numerics.progress import Progress, silent
from nextrapolate_numerics.series import Drift
from nextrapolate_numerics.update import RankOne, Update

_SHORT = 0.5  # of the least sigma that was learnt from: where no answer is more, training did not get there


@dataclass(frozen=True)
class NextPaper:
    """The encoder-decoder predictor over leading triples.

    Attributes:
        seed: of the predictors' initial weights.
        use_global: encode the global delta; off is the paper's ablation without G.
        use_local: encode the local delta; off is the paper's ablation without L.
        hidden_size: width of the bottlenecks.
        epochs: full-batch epochs.
        learning_rate: AdamW's peak rate; a cosine takes it to a tenth.

    Raises:
        ValueError: both inputs are off.
    """

    seed: int = 0
    use_global: bool = True
    use_local: bool = True
    hidden_size: int = 256
    epochs: int = 1000
    learning_rate: float = 2e-5

    needs: ClassVar[Evidence] = Evidence(triples=Seen.ALL)

    def __post_init__(self) -> None:
        if not (self.use_global or self.use_local):
            raise ValueError("use_global and use_local cannot both be off: the predictor needs one input")

    def check(self, drift: Drift, horizon_steps: int) -> None:
        """One pair of checkpoints a horizon apart is the least to learn from."""
        if not drift.pairs(horizon_steps):
            raise _too_few(drift, horizon_steps)

    def fit(self, extraction: Extraction, horizon_steps: int, on_progress: Progress = silent) -> Update:
        """Train one predictor per component and dimension, and ask each at the last visible checkpoint.

        Raises:
            TooFewCheckpointsError: as `check`.
            NonFiniteResultError: what was shown or answered is not within float32.
        """
        drift, pairs = extraction.drift, extraction.pairs
        if not pairs:
            raise _too_few(drift, horizon_steps)
        spans = torch.tensor([drift.steps[end] - drift.steps[start] for start, end in pairs])
        samples = partial(Samples.of, starts=[start - 1 for start, _ in pairs], stretch=horizon_steps / spans)
        seen = {
            name: extraction.triples[name]
            for name in sorted(extraction.moved)
            if extraction.triples[name].locals.sigma.any()
        }
        predicted = self._predict(seen, samples, extraction.device, on_progress)
        for (_, name), answer in predicted.items():
            if not answer.isfinite().all():
                raise NonFiniteResultError(name, "float32")
        triples = {
            name: Triple(
                predicted["sigma", name].double().clamp(min=0).squeeze(-1),
                unit(predicted["u", name]),  # Eq. 11
                unit(predicted["v", name]),
            )
            for name in seen
        }
        vanished = sum(1 for triple in triples.values() if not triple.sigma)
        targets = [each.targets.sigma * horizon_steps / spans for each in seen.values()]
        told = (*_warnings(spans, horizon_steps, vanished), *self._falls_short(triples.values(), targets))
        return RankOne(horizon_steps, told, triples)

    def _falls_short(self, predicted: Iterable[Triple], targets: Iterable[Tensor]) -> Iterator[str]:
        """AdamW's steps are of one size, whatever the lengths that it is shown: it may not get to them."""
        reached = max((float(triple.sigma) for triple in predicted), default=0.0)
        least = min((float(sigmas.min()) for sigmas in targets), default=0.0)
        if 0 < reached < _SHORT * least:
            yield (
                f"NExt predicted a sigma of {reached:.3g} at most, but learned from changes with {least:.3g} "
                f"at least: {self.epochs} epochs at a learning rate of {self.learning_rate:g} do not lead "
                'that far. Raise epochs or learning_rate, or leave out preset="paper".'
            )

    def _predict(
        self,
        seen: Mapping[str, ModuleTriples],
        samples: Callable[[ModuleTriples], "Samples"],
        device: torch.device,
        on_progress: Progress,
    ) -> dict[tuple[str, str], Tensor]:
        """The predicted part of each component and module: all parts of one length share a predictor."""
        groups: dict[tuple[str, int], list[str]] = {}
        for component in ("u", "v", "sigma"):
            for name, triples in seen.items():
                groups.setdefault((component, _length(triples, component)), []).append(name)
        training = Training(self.hidden_size, self.epochs, self.learning_rate)
        generator = torch.Generator().manual_seed(self.seed)
        lessons = (
            self._lesson(component, map(samples, [seen[name] for name in names]), device)
            for (component, _), names in groups.items()
        )
        entries = sum(length * len(names) for (_, length), names in groups.items())
        predicted: dict[tuple[str, str], Tensor] = {}
        if device.type == "cuda":
            answers = iter(predict_at_once(lessons, training, generator, on_progress))
        else:
            answers = predict(lessons, entries, training, generator, on_progress)
        for ((component, _), names), answer in zip(groups.items(), answers, strict=True):
            predicted |= zip([(component, name) for name in names], answer.cpu(), strict=True)
        return predicted

    def _lesson(self, component: str, samples: Iterable["Samples"], device: torch.device) -> Lesson:
        """Of one component alone: those of all together would take many times a checkpoint's memory."""
        parts, targets, query = (
            torch.stack(side, dim=-2).float().to(device)
            for side in zip(*(sample.of_component(component) for sample in samples), strict=True)
        )
        chosen = [index for index, used in enumerate((self.use_global, self.use_local)) if used]
        return Lesson(parts[chosen], targets, query[chosen])


@dataclass(frozen=True)
class Samples:
    """What one module gives to the predictors, signs aligned.

    Attributes:
        inputs: (2, q): global and local triples of the q pairs' first checkpoints.
        targets: (q): the triples of the deltas between the pairs' checkpoints, sigma brought to the horizon.
        query: (2): global and local triple of the last checkpoint.
    """

    inputs: Triple
    targets: Triple
    query: Triple

    @classmethod
    def of(cls, triples: ModuleTriples, starts: list[int], stretch: Tensor) -> "Samples":
        """Align global triples to the last, then local and target triples to the global one they start at.

        Args:
            triples: of one module, signs not aligned.
            starts: (q), for each pair the index of its first checkpoint.
            stretch: (q), horizon over the steps that the pair spans: 1 where checkpoints are evenly spaced.
        """
        globals_ = triples.globals.aligned_to(triples.globals[-1])
        locals_ = triples.locals.aligned_to(globals_)
        targets = triples.targets.aligned_to(globals_[starts])
        return cls(
            _stacked(globals_[starts], locals_[starts]),
            Triple(targets.sigma * stretch, targets.u, targets.v),
            _stacked(globals_[-1], locals_[-1]),
        )

    def of_component(self, component: str) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs (2, q, d), targets (q, d) and query (2, d) of "u", "v" or "sigma"."""
        parts = [getattr(triple, component) for triple in (self.inputs, self.targets, self.query)]
        inputs, targets, query = (part.unsqueeze(-1) if component == "sigma" else part for part in parts)
        return inputs, targets, query


def _length(triples: ModuleTriples, component: str) -> int:
    """Of the parts of a component: m, n or 1."""
    return 1 if component == "sigma" else getattr(triples.globals, component).shape[-1]


def _stacked(first: Triple, second: Triple) -> Triple:
    return Triple(
        torch.stack([first.sigma, second.sigma]),
        torch.stack([first.u, second.u]),
        torch.stack([first.v, second.v]),
    )


def _too_few(drift: Drift, horizon_steps: int) -> TooFewCheckpointsError:
    missing_steps = max(drift.steps[1] + horizon_steps - drift.last_step, 1)
    need = drift.checkpoints + math.ceil(missing_steps / drift.spacing)
    return TooFewCheckpointsError("next", have=drift.checkpoints, need=need)


def _warnings(spans: Tensor, horizon_steps: int, vanished: int) -> tuple[str, ...]:
    warnings = []
    if bool((spans != horizon_steps).any()):
        warnings.append(
            f"The checkpoints are not {horizon_steps} steps apart: NExt learned from pairs "
            f"{int(spans.min())} to {int(spans.max())} steps apart, with sigma scaled to the horizon."
        )
    if vanished:
        warnings.append(
            f"NExt predicted no positive sigma for {vanished} modules: they keep the last checkpoint."
        )
    return tuple(warnings)
