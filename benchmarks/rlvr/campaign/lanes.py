"""All runs, in one process a lane; what is under way, on the terminal."""

import logging
import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Self

import torch
from demo.evaluate import Accuracy
from demo.server import Server
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from benchmarks.rlvr.campaign.one_run import finished, make
from benchmarks.rlvr.campaign.plan import Planned
from nextrapolate import NExtClient

LOOK_SECONDS = 0.5

Event = tuple[str, int, float]
"""Name of a run, the step it has made, and the sampled accuracy last measured."""


@dataclass(frozen=True)
class Place:
    """Where runs are made, what they ask for jumps, and on how many questions they are measured."""

    folder: Path
    server: Server
    held_out: int


def make_all(runs: Sequence[Planned], place: Place, lanes: int, console: Console) -> dict[str, str]:
    """Make what is missing of the runs, the first ones first; return why some were not made, by name."""
    waiting = [run for run in runs if not finished(run, place.folder)]
    console.print(f"{len(runs)} runs, {len(runs) - len(waiting)} of them are there")
    failures: dict[str, str] = {}
    going: dict[Future[None], Planned] = {}
    with (
        multiprocessing.Manager() as manager,
        ProcessPoolExecutor(lanes, multiprocessing.get_context("spawn"), _begin_lane) as pool,
        Board(console, manager.Queue(), len(waiting)) as board,
    ):
        while waiting or going:
            for run in able_to_begin(waiting, place.folder, lanes - len(going)):
                waiting.remove(run)
                going[pool.submit(_make, run, place, board.events)] = run
            if not going:
                return failures | {run.name: f"{run.settings.start} is not there" for run in waiting}
            done, _ = wait(going, LOOK_SECONDS, FIRST_COMPLETED)
            board.show()
            for future in done:
                run, error = going.pop(future), future.exception()
                if error is not None:
                    failures[run.name] = repr(error)
                board.finish(run, error)
    return failures


def able_to_begin(waiting: Sequence[Planned], folder: Path, lanes: int) -> list[Planned]:
    """Return the next runs for so many free lanes; what branches off waits for the run it starts from."""
    able = (run for run in waiting if run.start is None or finished(run.start, folder))
    return list(islice(able, lanes))


class Board:
    """Bars on the terminal: one for all runs, one for each that is under way."""

    def __init__(self, console: Console, events: "Queue[Event]", runs: int) -> None:
        self.events = events
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=console,
        )
        self._all = self._progress.add_task("runs", total=runs, status="")
        self._bars: dict[str, TaskID] = {}
        self._status: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self) -> None:
        """Take up what the lanes have said."""
        while True:
            try:
                name, step, sampled = self.events.get_nowait()
            except Empty:
                return
            if name not in self._bars:
                self._bars[name] = self._progress.add_task(name, total=None, status="")
            self._status[name] = f"sampled {sampled:.3f}"
            self._progress.update(self._bars[name], completed=step, status=self._status[name])

    def finish(self, run: Planned, error: BaseException | None) -> None:
        """Take the run's bar away, and say how it ended."""
        self.show()
        if run.name in self._bars:
            self._progress.remove_task(self._bars.pop(run.name))
        self._progress.advance(self._all)
        ended = repr(error) if error else self._status.get(run.name, "")
        self._console.print(f"{run.name}: {ended}")


def _begin_lane() -> None:
    # Models this small gain nothing from a second thread.
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # of TRL and transformers about each other
    logger = logging.getLogger("nextrapolate")
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _make(run: Planned, place: Place, events: "Queue[Event]") -> None:
    def tell(step: int, accuracy: Accuracy) -> None:
        events.put((run.name, step, accuracy.sampled))

    with (
        _log_of(place.folder / f"{run.name}.log"),
        NExtClient(place.server.url, place.server.api_key) as client,
    ):
        make(run, place.folder, client, tell, place.held_out)


@contextmanager
def _log_of(file: Path) -> Iterator[None]:
    """Keep what the plugin says about its jumps, above all why one was not made."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("nextrapolate").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("nextrapolate").removeHandler(handler)
        handler.close()
