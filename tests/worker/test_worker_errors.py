"""Whose it is to mend what ended an attempt."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from nextrapolate_worker.errors import CheckpointGone, SourceUnavailable, is_the_machines


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def safetensors_error(folder: Path, code: int) -> SafetensorError:
    """As save_file words it where a folder is missing, with the code of another reason."""
    with pytest.raises(SafetensorError) as missing:
        save_file({"a": torch.zeros(1)}, folder / "missing" / "file")
    assert f"(os error {errno.ENOENT})" in str(missing.value)
    return SafetensorError(str(missing.value).replace(f"{errno.ENOENT})", f"{code})"))


def test_a_full_disk_is_the_machines_whoever_meets_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as full:
        Path("/dev/full").write_bytes(b"x")
    assert is_the_machines(full.value)
    assert is_the_machines(OSError(errno.EDQUOT, "of the user"))
    assert is_the_machines(caused(SourceUnavailable("the Hub's client says so"), full.value))
    assert is_the_machines(OSError(errno.EROFS, "remounted"))
    assert is_the_machines(safetensors_error(tmp_path, errno.ENOSPC))
    assert is_the_machines(safetensors_error(tmp_path, errno.EROFS))
    assert not is_the_machines(safetensors_error(tmp_path, errno.ENOENT))
    assert not is_the_machines(OSError(errno.EIO, "another"))
    assert not is_the_machines(SourceUnavailable("away"))


def test_what_callers_name_does_not_stop_a_machine() -> None:
    assert not is_the_machines(CheckpointGone("Error while serializing: x (os error 28)"))
    assert not is_the_machines(SafetensorError("there is no tensor x (os error 28)"))
