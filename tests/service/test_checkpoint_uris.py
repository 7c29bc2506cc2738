import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextrapolate import folders
from nextrapolate.schemas import MOST_CHECKPOINTS, CheckpointRef
from nextrapolate_service.errors import RefusedUriError, UnknownStepError
from nextrapolate_service.uris.disk import FileRoots, open_resolved, resolve_below
from nextrapolate_service.uris.parsing import FileUri, HubUri, S3Uri, parse, parse_checkpoints, step_of


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("file:///runs/a b/checkpoint-10", FileUri(Path("/runs/a b/checkpoint-10"))),
        ("hf://org/run@main/checkpoint-10", HubUri("org/run", "main", "checkpoint-10")),
        ("hf://org/run@0a1b", HubUri("org/run", "0a1b", "")),
        ("hf://org/run@step_10/", HubUri("org/run", "step_10", "")),
        ("s3://bucket/runs/checkpoint-10", S3Uri("bucket", "runs/checkpoint-10")),
        ("s3://bucket/runs/checkpoint-10/", S3Uri("bucket", "runs/checkpoint-10")),
    ],
)
def test_good_uris_are_typed(text: str, uri: object) -> None:
    assert parse(text) == uri


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/etc/passwd",
        "http://169.254.169.254/latest",
        "https://example.org/a",
        "HTTP://example.org/a",
        "file://host/etc/passwd",
        "file://user@/etc/passwd",
        "file:///runs/../etc/passwd",
        "file:///runs/%2e%2e/etc",
        "file:///runs/a#b",
        "file:///runs/a?b",
        "file:///runs\\a",
        "file:///runs/a\0b",
        "file:///runs/a\nb",
        "hf://org/run",
        "hf://user:secret@org/run@main/a",
        "hf://org/run@main/..",
        "s3://b/..%2f",
        "s3://key:secret@bucket/a",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket/a//b",
        "s3://bucket/./a",
        "s3://169.254.169.254",
        "s3://BUCKET/a",
        "hf://org/run@main/./a",
        "hf://org/run@main//a",
        "hf://org/run@refs/pr/1/a/../b",
        "hf://169.254.169.254:80/run@main",
        "hf://org@host/run@main",
        "file:///runs/a}b",
        "ftp://host/a",
        "s3:/bucket/a",
    ],
)
def test_what_could_mean_two_things_is_refused(text: str) -> None:
    with pytest.raises(RefusedUriError, match="is refused"):
        parse(text)


@settings(deadline=None)
@given(st.sampled_from(["file://", "hf://", "s3://", ""]), st.text())
def test_any_text_is_parsed_or_refused(scheme: str, rest: str) -> None:
    try:
        uri = parse(scheme + rest)
    except RefusedUriError:
        return
    assert ".." not in str(uri).split("/")


def expanded(*texts: str) -> list[tuple[int, object]]:
    references = [CheckpointRef(uri=text) for text in texts]
    return [(checkpoint.step, checkpoint.uri) for checkpoint in parse_checkpoints(references)]


def test_a_range_stands_for_one_checkpoint_a_step() -> None:
    assert expanded("hf://org/run@step_{10..30..10}", "file:///run/checkpoint-40") == [
        (10, HubUri("org/run", "step_10", "")),
        (20, HubUri("org/run", "step_20", "")),
        (30, HubUri("org/run", "step_30", "")),
        (40, FileUri(Path("/run/checkpoint-40"))),
    ]
    assert expanded("s3://bucket/run/{8..9}/adapter") == [
        (8, S3Uri("bucket", "run/8/adapter")),
        (9, S3Uri("bucket", "run/9/adapter")),
    ]
    assert expanded("hf://org/run@main/{7..7}") == [(7, HubUri("org/run", "main", "7"))]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hf://o/r@step_{30..10..10}", "has to ascend"),
        ("hf://o/r@step_{10..30..0}", "has to ascend"),
        (f"hf://o/r@step_{{1..{MOST_CHECKPOINTS + 1}}}", f"to {MOST_CHECKPOINTS} steps"),
        ("hf://o/r@step_{1..999999999999999}", f"to {MOST_CHECKPOINTS} steps"),
        ("hf://o/r@step_{10..30..10}/{1..2}", "at most one range"),
        ("hf://o/r@step_{010..030}", "write a range"),
        ("hf://o/r@step_{10,20}", "write a range"),
        ("hf://o/r@step_{10..20..}", "write a range"),
        ("hf://o/r@step_{-1..2}", "write a range"),
        ("hf://o/{1..2}", "write it as hf://"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(RefusedUriError, match=says):
        expanded(text)


def test_a_range_takes_no_step_and_many_ranges_no_more_than_a_job() -> None:
    with pytest.raises(RefusedUriError, match="leave `step` out"):
        parse_checkpoints([CheckpointRef(uri="hf://o/r@step_{1..2}", step=3)])
    with pytest.raises(RefusedUriError, match="name fewer"):
        expanded(f"hf://o/r@step_{{1..{MOST_CHECKPOINTS}}}", "hf://o/r@step_2000")


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("file:///runs/checkpoint-10", 10),
        ("file:///runs/global_step_20/actor/lora_adapter", 20),
        ("file:///checkpoint-1/then/checkpoint-30/", 30),
        ("hf://org/run@step_40/adapter", 40),
        ("hf://org/run@checkpoint-50", 50),
        ("s3://bucket/run/global_step60_hf", 60),
    ],
)
def test_the_step_is_read_from_the_path_as_the_client_reads_it(text: str, step: int) -> None:
    assert step_of(text) == step
    assert folders.step_of(Path(text.replace("@", "/"))) == step


@pytest.mark.parametrize("text", ["file:///runs/last", "file:///runs/checkpoint-", "file:///mycheckpoint-10"])
def test_a_path_without_a_step_says_so(text: str) -> None:
    with pytest.raises(UnknownStepError, match="give `step`"):
        step_of(text)


def test_files_below_a_root_are_read_and_nothing_else(tmp_path: Path) -> None:
    root, outside, hidden = tmp_path / "root", tmp_path / "outside", tmp_path / "root" / "data"
    for folder in (root, outside, tmp_path / "root-but-longer", hidden):
        folder.mkdir()
        (folder / "file").write_text("content")
    (root / "inside").symlink_to("file")
    (root / "out").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    (root / "shortcut").symlink_to(hidden)
    roots = FileRoots((root,), hidden)
    os.mkfifo(root / "pipe")

    assert open_and_read(resolve_below(roots, root / "inside")) == b"content"
    for refused in (
        outside / "file",
        hidden / "file",
        root / "shortcut" / "file",
        root / "out" / "file",
        root / "pipe",
        root / "loop",
        root / "missing",
        root,
        tmp_path / "root-but-longer" / "file",
        root / ("x" * 300),
    ):
        with pytest.raises(RefusedUriError, match="no such file below"):
            resolve_below(roots, refused)
    with pytest.raises(RefusedUriError, match=r"file:// is off"):
        resolve_below(FileRoots((), hidden), root / "file")


def test_a_link_put_in_its_place_later_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    resolved = resolve_below(FileRoots((tmp_path,), tmp_path / "data"), tmp_path / "file")
    resolved.unlink()
    resolved.symlink_to("/etc/passwd")
    with pytest.raises(RefusedUriError, match="cannot read"):
        open_resolved(resolved)


def open_and_read(path: Path) -> bytes:
    with open_resolved(path) as file:
        return file.read()
