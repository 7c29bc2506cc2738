"""From text to typed checkpoints: parsed once, and the text is never looked at again."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nextrapolate.folders import named_step
from nextrapolate.schemas import MOST_CHECKPOINTS, CheckpointRef
from nextrapolate_service.errors import RefusedUriError, UnknownStepError

_FORBIDDEN = {"#": "a fragment (#)", "?": "a query (?)", "%": "a percent sign", "\\": "a backslash"}
_NUMBER = "(0|[1-9][0-9]{0,14})"
_RANGE = re.compile(r"\{" + _NUMBER + r"\.\." + _NUMBER + r"(?:\.\." + _NUMBER + r")?\}")
_HUB = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+?)@(?!\.\.?(?:/|$))(?P<revision>[\w.-]+)(?P<path>(?:/[\w.-]+)*)/?", re.ASCII
)
_S3 = re.compile(r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/(?P<key>[^/]+(?:/[^/]+)*)/?")


@dataclass(frozen=True)
class FileUri:
    """A folder on the server's own disk."""

    path: Path


@dataclass(frozen=True)
class HubUri:
    """A folder of a Hugging Face repository at a revision."""

    repo: str
    revision: str
    path: str
    """Empty where it is the repository's own."""


@dataclass(frozen=True)
class S3Uri:
    """A prefix in a bucket."""

    bucket: str
    key: str


Uri = FileUri | HubUri | S3Uri


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a caller has named."""

    step: int
    uri: Uri
    text: str
    """The URI as it may be shown in an error."""


def parse_checkpoints(references: Iterable[CheckpointRef]) -> tuple[Checkpoint, ...]:
    """Parse the checkpoints of a request, in its order; a range such as {10..150..10} stands for several.

    Raises:
        RefusedUriError: a URI that this server does not read, or more checkpoints than a job may have.
        UnknownStepError: no step is given, and none can be read from the URI.
    """
    checkpoints: list[Checkpoint] = []
    for reference in references:
        for text, number in _expanded(reference.uri):
            if number is not None and reference.step is not None:
                raise _refused(reference.uri, "each number of a range is a step: leave `step` out")
            uri = parse(text)
            step = reference.step if number is None else number
            checkpoints.append(Checkpoint(step_of(text) if step is None else step, uri, shown(text)))
            if len(checkpoints) > MOST_CHECKPOINTS:
                raise _refused(
                    reference.uri, f"a job takes at most {MOST_CHECKPOINTS} checkpoints: name fewer"
                )
    return tuple(checkpoints)


def parse(text: str) -> Uri:
    """Parse `file:///folder`, `hf://org/repo@revision/folder` or `s3://bucket/prefix`.

    Raises:
        RefusedUriError: another scheme, or anything in it that could mean two things to two readers.
    """
    for character, what in _FORBIDDEN.items():
        if character in text:
            raise _refused(text, f"it contains {what}: give the plain path")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        raise _refused(text, "it contains a control character: give the plain path")
    if "{" in text or "}" in text:
        raise _refused(text, "write a range of steps as {10..150..10}, and at most one range")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _PARSERS:
        raise _refused(text, "only file://, hf:// and s3:// are read: upload to a series instead")
    if not {".", ".."}.isdisjoint(rest.split("/")):
        raise _refused(text, "it contains '.' or '..' as a folder: give the plain path")
    return _PARSERS[scheme](text, rest)


def step_of(text: str) -> int:
    """Read the step from a URI: the last part of its path or revision that is named after one.

    Raises:
        UnknownStepError: there is none.
    """
    steps = [step for part in re.split("[/@]", text) if (step := named_step(part)) is not None]
    if not steps:
        raise UnknownStepError(
            f"{shown(text)} contains no step: give `step`, or a path with checkpoint-N or global_step_N",
            field="checkpoints",
        )
    return steps[-1]


def shown(text: str) -> str:
    """The text as it may stand in an error: in ASCII, and not too long."""
    return ascii(text if len(text) <= 200 else text[:197] + "...")


def _expanded(text: str) -> Iterator[tuple[str, int | None]]:
    """Give the URIs that a range stands for, each with its number; the URI itself where it holds none."""
    found = _RANGE.search(text)
    if found is None:
        yield text, None
        return
    first, last, stride = int(found[1]), int(found[2]), int(found[3] or 1)
    numbers = range(first, last + 1, stride) if stride else ()
    if not 1 <= len(numbers) <= MOST_CHECKPOINTS:
        raise _refused(
            text,
            f"the range {found[0]} has to ascend, and to give 1 to {MOST_CHECKPOINTS} steps: fix its numbers",
        )
    for number in numbers:
        yield f"{text[: found.start()]}{number}{text[found.end() :]}", number


def _parse_file(text: str, rest: str) -> FileUri:
    if not rest.startswith("/"):
        raise _refused(text, "a file URI has three slashes and no host: file:///absolute/path")
    return FileUri(Path(rest))


def _parse_hub(text: str, rest: str) -> HubUri:
    found = _HUB.fullmatch(rest)
    if not found:
        raise _refused(text, "write it as hf://org/repo@revision/folder")
    return HubUri(found["repo"], found["revision"], found["path"].strip("/"))


def _parse_s3(text: str, rest: str) -> S3Uri:
    found = _S3.fullmatch(rest)
    if not found:
        raise _refused(text, "write it as s3://bucket/prefix")
    return S3Uri(found["bucket"], found["key"])


_PARSERS: Mapping[str, Callable[[str, str], Uri]] = {
    "file": _parse_file,
    "hf": _parse_hub,
    "s3": _parse_s3,
}


def _refused(text: str, why: str) -> RefusedUriError:
    return RefusedUriError(f"{shown(text)} is refused: {why}", field="checkpoints")
