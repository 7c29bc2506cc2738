import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextrapolate_service.errors import RefusedUriError, UnknownStepError
from nextrapolate_service.uris import (
    FileRoots,
    FileUri,
    HubUri,
    S3Uri,
    open_resolved,
    parse,
    resolve_below,
    step_of,
)


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("file:///runs/a b/checkpoint-10", FileUri(Path("/runs/a b/checkpoint-10"))),
        ("hf://org/run@main/checkpoint-10", HubUri("org/run", "main", "checkpoint-10")),
        ("hf://org/run@0a1b", HubUri("org/run", "0a1b", "")),
        ("s3://bucket/runs/checkpoint-10", S3Uri("bucket", "runs/checkpoint-10")),
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


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("file:///runs/checkpoint-10", 10),
        ("file:///runs/global_step_20/actor/lora_adapter", 20),
        ("file:///checkpoint-1/then/checkpoint-30/", 30),
    ],
)
def test_the_step_is_read_from_the_path(text: str, step: int) -> None:
    assert step_of(text) == step


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
