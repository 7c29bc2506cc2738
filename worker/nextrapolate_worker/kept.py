"""What the stages of a job have made, kept for the case that another attempt has to take over.

    {data_dir}/jobs/{job}/stages/{stage}-{key}-{sha256}.safetensors

The key stands for everything that the result depends on: the request, the bytes of all inputs, the versions,
and how the worker computes. The sha256 is that of the file, so that a damaged one is seen, and made again.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from safetensors import SafetensorError

from nextrapolate_store.files import make_folder, temporary_in
from nextrapolate_worker.carriers import Given, load_carrier, save_carrier
from nextrapolate_worker.files import digest

_log = logging.getLogger(__name__)

T = TypeVar("T")


class KeptStages:
    """Made by one attempt, used by the next; nothing of it is missed where it is gone.

    Args:
        folder: the job's own.
        attempt: the folder of this attempt, which goes when the job has ended elsewhere, with what is kept.
        depends_on: what the results depend on, as JSON can say it.
        given: what the results refer to, and what is not kept with them.
    """

    def __init__(self, folder: Path, attempt: Path, depends_on: Mapping[str, Any], given: Given) -> None:
        self._folder = folder
        self._attempt = attempt
        self._key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]
        self._given = given

    def of(self, stage: str, kind: Any, make: Callable[[], T]) -> T:
        """Give what an earlier attempt has kept of this stage, else make it and keep it.

        Args:
            stage: names it within the job.
            kind: annotation of what it makes, as of a field.
            make: makes it.
        """
        for kept in self._find(stage, kind):
            _log.info("%s is taken over from an earlier attempt", stage)
            return cast(T, kept)
        made = make()
        if not self._keep(stage, made):
            return made
        del made  # or there would be two for a while, and of many checkpoints they are large
        # As another attempt would find it: the same values, and lying in memory the same way, which decides
        # over the last bits of what is computed from them.
        for kept in self._find(stage, kind):
            return cast(T, kept)
        return make()  # somebody has removed the file

    def _find(self, stage: str, kind: Any) -> Iterator[Any]:
        for path in self._folder.glob(f"{stage}-{self._key}-*.safetensors"):
            if path.stem.rpartition("-")[2] == digest(path):
                try:
                    yield load_carrier(kind, path, self._given)
                except ValueError as error:
                    _log.warning("made again: %s", error)

    def _keep(self, stage: str, made: object) -> bool:
        """Not flushed to disk: what is lost is made again. Gives whether it is there now."""
        if not self._attempt.is_dir():  # nobody would come for it, or clear it away
            return False
        try:
            make_folder(self._folder)
            temporary = temporary_in(self._folder)
            try:
                save_carrier(made, temporary, self._given)
                temporary.rename(self._folder / f"{stage}-{self._key}-{digest(temporary)}.safetensors")
                return True
            finally:
                temporary.unlink(missing_ok=True)
        except (OSError, SafetensorError) as error:  # which a full disk is, too, where safetensors meets it
            _log.warning("%s is not kept for another attempt: %s", stage, error)
            return False
