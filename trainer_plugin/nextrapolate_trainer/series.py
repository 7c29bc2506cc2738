"""A run's series of checkpoints at the service: begun, continued after a resume, or branched off."""

import logging
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from http.client import UNPROCESSABLE_ENTITY
from typing import Any

from safetensors.torch import save

from nextrapolate import NExtClient
from nextrapolate.errors import (
    ConflictError,
    InvalidRequestError,
    NextrapolateError,
    NotFoundError,
    ParameterError,
)
from nextrapolate.schemas import ADAPTER_MODEL, CheckpointInfo, JumpInfo, Series
from nextrapolate_trainer.adapter import Adapter
from nextrapolate_trainer.errors import RunRefusedError
from nextrapolate_trainer.state import RunState

logger = logging.getLogger("nextrapolate")

_LONGEST_NAME = 256
"""Characters of a series' name. Trainers make up longer ones, of all that a sweep varies."""

_INITS_BESIDE_THE_BASE = (True, "gaussian", "orthogonal", "eva")
"""PEFT's `init_lora_weights` that leave the base model as it is, with BA = 0."""

_OF_EXPERTS = (
    ". PEFT sets target_parameters for the experts and the router of a mixture of experts, also if "
    'target_modules is "all-linear": name attention layers instead, such as target_modules=["q_proj", '
    '"k_proj", "v_proj", "o_proj"]'
)


@dataclass(frozen=True)
class Run:
    """What the service is told about a training run."""

    name: str
    base_model: str | None
    lora_config: Mapping[str, Any]
    """Content of the run's adapter_config.json."""
    start: Adapter | None = None
    """The adapter that training began with, copied, where it had been trained before."""
    from_start: bool = True
    """False where the run is met on its way, and nobody knows what it began with."""


class RunSeries:
    """The series that a run posts to. Its calls wait for the network, and belong in a background thread.

    Args:
        client: the service.
        run: what the series says about the run.
        resumed: the state that the run goes on from; None at its beginning.
    """

    def __init__(self, client: NExtClient, run: Run, resumed: RunState | None) -> None:
        self._client = client
        self._run = run
        self._resumed = resumed
        self._id: str | None = None
        self._has_start: str | None = None
        self._jumps = list(resumed.jumps) if resumed else []
        self._unrecorded: list[JumpInfo] = []
        self._jumped_before = False
        self._own: dict[int, str] = {}
        """Digests of the checkpoints that this process has posted, by their steps."""

    @property
    def id(self) -> str | None:
        """The series; None as long as nothing has arrived there."""
        return self._id or (self._resumed.series if self._resumed else None)

    @property
    def jumps(self) -> tuple[JumpInfo, ...]:
        """The jumps of the run, those before a resume or of a series that was lost included."""
        return tuple(self._jumps)

    @property
    def from_base(self) -> bool:
        """Whether only training is known to lie between the base model and the first checkpoint."""
        if self._jumped_before:
            return False
        if self._resumed is not None:
            return self._resumed.from_base
        return self._run.from_start and self._run.start is None

    def begin(self) -> str | None:
        """Begin the series of a new run, or see that the service answers a resumed one.

        A key, an address or a run that is of no use shows here, long before the first checkpoint.

        Returns:
            The series; None where it is gone, and the first checkpoint begins another.

        Raises:
            NextrapolateError: nothing can be posted now.
            RunRefusedError: nothing ever will be.
        """
        if self._resumed is None or self._resumed.series is None:
            self._id = self._created()
            return self._id
        with suppress(NotFoundError):
            return self._client.get_series(self._resumed.series).id
        return None

    def post(self, step: int, adapter: Adapter) -> None:
        """Post a checkpoint: nothing is sent that the service has. Then record what jumps are left to record.

        Into a new series, where the service has lost the old one, or the job of a jump yet to be told, and
        where another run, resumed from the same checkpoint, posts to the old one, too.

        Raises:
            NextrapolateError: the checkpoint is not at the service.
            RunRefusedError: it never will be.
        """
        content = save(dict(adapter))
        digest = sha256(content).hexdigest()
        if self._id is None:
            self._id = self._opened(step, digest)
        try:
            self._put_own(self._id, step, content, digest)
            self._record_or_log()
        except NotFoundError as error:
            self._id = self._begun_anew(step, error)
            self._put_own(self._id, step, content, digest)

    def add_jump(self, step: int, job: str) -> None:
        """Note that the job's adapter was swapped in after `step`; `record_jumps` tells the service."""
        jump = JumpInfo(step=step, job=job)
        self._jumps.append(jump)
        self._unrecorded.append(jump)

    def record_jumps(self) -> None:
        """Tell the service of the jumps that it does not know: later increments are measured from them.

        Raises:
            NextrapolateError: it does not take them now.
        """
        try:
            self._record()
        except ConflictError as error:
            self.part(error)
            self._record()

    def is_shared(self, steps: Iterable[int]) -> bool:
        """Tell whether another run has posted any of these checkpoints of the series."""
        return any(step > self._begun_at() and step not in self._own for step in steps)

    def part(self, refused: ConflictError | None = None) -> None:
        """Go on in a new series with this run's own checkpoints: another run posts to the old one, too.

        Args:
            refused: what the old one did not take; raised where nothing in it is another run's, as what this
                run has said twice is refused by a new series, too.

        Raises:
            NextrapolateError: that cannot be made now.
        """
        assert self._id is not None  # noqa: S101 (what is shared is there)
        old = self._client.get_series(self._id)
        if refused is not None and not self._is_entered(old):
            raise refused
        past = _digests(info for info in old.checkpoints if info.step <= self._begun_at())
        self._id = self._copied(past | self._own)
        logger.warning(
            "another run posts to the series %s, too: this one continues in a new one, %s", old.id, self._id
        )

    def _is_entered(self, series: Series) -> bool:
        """Tell whether another run has posted a checkpoint to the series, or jumped in it."""
        made = {(jump.step, jump.job) for jump in self._jumps}
        return any(
            info.step > self._begun_at() and _digest(info) not in (None, self._own.get(info.step))
            for info in series.checkpoints
        ) or any((jump.step, jump.job) not in made for jump in series.jumps)

    def _begun_at(self) -> int:
        """The step from which this process has posted what lies beyond."""
        return self._resumed.step if self._resumed else 0

    def _record(self) -> None:
        for jump in tuple(self._unrecorded):
            assert self._id is not None  # noqa: S101 (a jump starts from a checkpoint that was posted)
            self._client.record_jump(self._id, jump.step, jump.job)
            # A call that was given up tells on in its own thread: told twice, a jump is noted once.
            with suppress(ValueError):
                self._unrecorded.remove(jump)

    def _put_own(self, series: str, step: int, content: bytes, digest: str) -> None:
        """Put a checkpoint, into a series of this run alone where another's is in its way."""
        before = self._own.get(step)
        self._own[step] = digest  # first: it may arrive, and the answer to that not
        try:
            self._put(series, step, content)
        except ConflictError as error:
            del self._own[step]
            if before is not None:
                self._own[step] = before
            self.part(error)
            self._own[step] = digest
            self._put(str(self._id), step, content)

    def _put(self, series: str, step: int, content: bytes) -> None:
        """Put a checkpoint; before the first one the adapter from which the drift is measured."""
        if self._run.start is not None and self._has_start != series and not self._jumped_before:
            self._client.put_file(series, 0, ADAPTER_MODEL, save(dict(self._run.start)))
            self._has_start = series
        self._client.put_file(series, step, ADAPTER_MODEL, content)

    def _record_or_log(self) -> None:
        try:
            self.record_jumps()
        except NotFoundError:
            raise
        except NextrapolateError as error:
            logger.warning("the last jump is not recorded in the series yet: %s", error)

    def _opened(self, step: int, digest: str) -> str:
        """Return the series to post to, where the first file to be posted is this one."""
        if self._resumed is None or self._resumed.series is None:
            return self._created()
        try:
            old = self._client.get_series(self._resumed.series)
        except NotFoundError as error:
            return self._begun_anew(step, error)
        if self._goes_on(old, step, digest):
            known = {jump.step for jump in old.jumps}
            self._unrecorded = [
                jump
                for jump in self._made_between(info.step for info in old.checkpoints)
                if jump.step not in known
            ]
            if old.checkpoints:  # its start went before them, or is none of its own
                self._has_start = old.id
            return old.id
        return self._branched(old, step)

    def _goes_on(self, old: Series, step: int, digest: str) -> bool:
        """Tell whether the series holds this run's past and nothing else: no checkpoint or jump of a future.

        A run that was killed and resumed from an earlier checkpoint takes another path from there.
        """
        beyond = [info for info in old.checkpoints if not self._is_past(info, step)]
        same = all(info.step == step and _digest(info) in (digest, None) for info in beyond)
        made = {(jump.step, jump.job) for jump in self._jumps}
        return same and all((jump.step, jump.job) in made for jump in old.jumps)

    def _is_past(self, info: CheckpointInfo, step: int) -> bool:
        assert self._resumed is not None  # noqa: S101 (asked of a resumed run's series only)
        return info.step <= self._resumed.step and info.step != step

    def _branched(self, old: Series, step: int) -> str:
        """Return a new series with this run's part of an old one."""
        new = self._copied(_digests(info for info in old.checkpoints if self._is_past(info, step)))
        logger.info(
            "the run goes another way than its series %s, and continues in a new one, %s", old.id, new
        )
        return new

    def _copied(self, digests: Mapping[int, str]) -> str:
        """Return a new series with these checkpoints, by their steps; their files are named, not sent."""
        new = self._created()
        for step in sorted(digests):
            if self._client.announce(new, step, {ADAPTER_MODEL: digests[step]}):
                logger.warning("the service has lost the checkpoint of step %d: jumps do without it", step)
        self._unrecorded = self._made_between(digests)
        return new

    def _made_between(self, steps: Iterable[int]) -> list[JumpInfo]:
        """The jumps that lie between a series' checkpoints; others were made before it was begun."""
        first = min(steps, default=math.inf)
        return [jump for jump in self._jumps if first <= jump.step]

    def _begun_anew(self, step: int, lost: NotFoundError) -> str:
        """Return a new series in place of one that is gone, or that cannot be told of a jump of its own.

        What lies before its first checkpoint is no drift, where the run has jumped.
        """
        self._jumped_before, self._unrecorded, self._own = bool(self._jumps), [], {}
        new = self._created()
        logger.warning(
            "the run continues in a new series, %s, and jumps do without the checkpoints before step %d: %s",
            new,
            step,
            lost,
        )
        return new

    def _created(self) -> str:
        config = dict(self._run.lora_config)
        # PEFT's own says of a trained adapter, too, that it began at the base model. PiSSA and its like stay:
        # they take their factors out of the base, on which BA is another model, and the service refuses them.
        if not self.from_base and config.get("init_lora_weights", True) in _INITS_BESIDE_THE_BASE:
            config["init_lora_weights"] = False
        try:
            series = self._client.create_series(
                self._run.name[:_LONGEST_NAME], base_model=self._run.base_model, lora_config=config
            )
        except ParameterError as error:
            raise RunRefusedError(
                f"the service does not accept a series such as this run's: {error}"
            ) from error
        except InvalidRequestError as error:
            if error.problem.status != UNPROCESSABLE_ENTITY:
                raise
            advice = _OF_EXPERTS if config.get("target_parameters") else ""
            raise RunRefusedError(f"the service cannot extrapolate such a run: {error}{advice}") from error
        return series.id


def _digests(checkpoints: Iterable[CheckpointInfo]) -> dict[int, str]:
    """Return the sha256 of the weights that have arrived, by step."""
    return {info.step: digest for info in checkpoints if (digest := _digest(info))}


def _digest(info: CheckpointInfo) -> str | None:
    """Return the sha256 of a checkpoint's weights; None where they have not arrived."""
    file = info.files.get(ADAPTER_MODEL)
    return file.sha256 if file else None
