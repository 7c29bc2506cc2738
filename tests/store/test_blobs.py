"""Files appear whole or not at all."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from nextrapolate.schemas import FileInfo
from nextrapolate_store.blobs import BlobStore, uncounted
from nextrapolate_store.errors import BlobNotFound, DigestMismatch
from nextrapolate_store.files import remove_abandoned
from nextrapolate_store.job_folders import JobFolders
from nextrapolate_store.records import FileSource

DATA = b"adapter" * 1000
SHA256 = hashlib.sha256(DATA).hexdigest()

SLOW_UPLOAD = """
import sys
from pathlib import Path
from nextrapolate_store.blobs import BlobStore, uncounted

with BlobStore(Path(sys.argv[1]), uncounted).upload("default") as upload:
    while True:
        upload.write(bytes(1 << 20))
        print(upload.bytes_written, flush=True)
"""


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    (tmp_path / "data" / "blobs").mkdir(parents=True)
    return BlobStore(tmp_path / "data", uncounted)


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


def test_an_upload_is_found_by_its_digest(blobs: BlobStore, tmp_path: Path) -> None:
    with blobs.upload("default") as upload:
        for start in range(0, len(DATA), 999):
            upload.write(DATA[start : start + 999])
        info = upload.commit(SHA256)
    assert info == FileInfo(bytes=len(DATA), sha256=SHA256)
    path = blobs.path(FileSource("blob", SHA256), "default")
    assert path.read_bytes() == DATA
    assert files_under(tmp_path) == [path]


def test_another_tenant_does_not_see_it(blobs: BlobStore) -> None:
    blobs.put_bytes("default", DATA)
    with pytest.raises(BlobNotFound, match="upload it first"):
        blobs.path(FileSource("blob", SHA256), "other")


@pytest.mark.parametrize(
    "location", ["", "..", "../../../etc/passwd", "0" * 64, SHA256.upper(), SHA256 + "\n"]
)
def test_no_digest_leads_out_of_the_folder(blobs: BlobStore, location: str) -> None:
    blobs.put_bytes("default", DATA)
    with pytest.raises(BlobNotFound):
        blobs.path(FileSource("blob", location), "default")


@pytest.mark.parametrize("tenant", ["", "..", "a/b", "ä", "a\n"])
def test_a_tenant_is_a_plain_name(blobs: BlobStore, tenant: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        blobs.put_bytes(tenant, DATA)


def test_a_wrong_digest_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    with blobs.upload("default") as upload:
        upload.write(DATA)
        with pytest.raises(DigestMismatch, match="send the file again"):
            upload.commit("0" * 64)
    assert files_under(tmp_path) == []


def test_a_caller_that_leaves_half_way_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    with suppress(ConnectionResetError), blobs.upload("default") as upload:
        upload.write(DATA)
        raise ConnectionResetError
    assert files_under(tmp_path) == []


def test_twenty_uploads_of_one_file_make_one_blob(blobs: BlobStore, tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        infos = set(pool.map(lambda _: blobs.put_bytes("default", DATA), range(20)))
    assert infos == {FileInfo(bytes=len(DATA), sha256=SHA256)}
    assert len(files_under(tmp_path)) == 1


def test_a_killed_upload_is_never_visible_and_swept_later(blobs: BlobStore, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLOW_UPLOAD, str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 10 << 20:
            pass
        process.send_signal(signal.SIGKILL)
    (left,) = files_under(tmp_path)
    assert left.name.startswith(".upload-")
    assert left.parent == tmp_path / "data" / "blobs" / "default"

    assert remove_abandoned(tmp_path / "data", 3600) == 0, "it might still be written to"
    os.utime(left, (0, time.time() - 7200))
    assert remove_abandoned(tmp_path / "data", 3600) == 1
    assert files_under(tmp_path) == []


def test_what_lies_among_blobs_and_is_none_is_neither_counted_nor_touched(
    blobs: BlobStore, tmp_path: Path
) -> None:
    """As NFS leaves a file that was removed while somebody read it, and a copy that was broken off."""
    blobs.put_bytes("default", DATA)
    blob = blobs.path(FileSource("blob", SHA256), "default")
    elsewhere = blob.parents[1] / ("00" if SHA256[:2] == "ff" else "ff")
    elsewhere.mkdir()
    folder = blob.with_name(f"{SHA256[:2]}-dir")
    folder.mkdir()
    strays = [blob.with_name(".nfs000000000001"), blob.with_name(f"{SHA256}.part"), elsewhere / SHA256]
    for stray in strays:
        stray.write_bytes(b"stray")
    for path in (blob, folder, *strays):
        os.utime(path, (0, time.time() - 7200))
    assert blobs.stored("default") == {SHA256: len(DATA)}
    unused = blobs.old(3600)
    assert unused == {"default": {SHA256}}
    assert blobs.remove_unused(unused, 3600) == 1
    assert sorted(files_under(tmp_path)) == sorted(strays)
    assert folder.is_dir()


def test_what_lies_among_tenants_folders_and_is_none_is_left_alone(blobs: BlobStore, tmp_path: Path) -> None:
    """As an operator's copy of a folder, and a note."""
    blobs.put_bytes("default", DATA)
    blob = blobs.path(FileSource("blob", SHA256), "default")
    os.utime(blob, (0, time.time() - 7200))
    folders = tmp_path / "data" / "blobs"
    shutil.copytree(folders / "default", folders / "default.bak")
    (folders / "README").write_text("moved here in May")
    assert blobs.tenants() == ["default"]
    unused = blobs.old(3600)
    assert unused == {"default": {SHA256}}
    assert blobs.remove_unused(unused, 3600) == 1
    assert [path.parts[-3] for path in folders.rglob(SHA256)] == ["default.bak"]


def test_each_attempt_has_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "job").mkdir(parents=True)
    folders = JobFolders(tmp_path)
    first, second = folders.result_folder("job", 1), folders.result_folder("job", 2)
    assert first.is_dir()
    assert first != second
    assert folders.result_folder("job", 1) == first
