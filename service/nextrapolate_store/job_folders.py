"""Where jobs lie on disk: their records, and what their attempts make.

    {data_dir}/jobs/{job}/*.json      the records (journal.py)
    {data_dir}/jobs/{job}/{fence}/    what one attempt made
    {data_dir}/jobs/{job}/stages/     what an attempt leaves to the next one (the worker's kept.py)

No other module puts these paths together.
"""

import shutil
from pathlib import Path

from nextrapolate_store.errors import ArtifactNotFound, ResultLost
from nextrapolate_store.files import discard_folder, make_folder, remove_discarded
from nextrapolate_store.ids import ids_in
from nextrapolate_store.records import JobRecord, JobSummary


class JobFolders:
    """The folders of all jobs."""

    def __init__(self, data_dir: Path) -> None:
        self._jobs = data_dir.absolute() / "jobs"

    def path(self, job_id: str) -> Path:
        """Give the path of a job's folder, which need not be there."""
        return self._jobs / job_id

    def ids(self) -> list[str]:
        """Ids of the jobs that have a folder, whatever is in it, oldest first."""
        return ids_in(self._jobs)

    def result_folder(self, job_id: str, fence: int) -> Path:
        """Make the folder for the results of one attempt, and give its path.

        Raises:
            FileNotFoundError: the job has no folder, or the data folder is not there.
        """
        folder = self.path(job_id) / str(fence)
        make_folder(folder)
        return folder

    def discard_attempt(self, job_id: str, fence: int) -> None:
        """Remove what one attempt has made, as far as the disk lets it."""
        shutil.rmtree(self.path(job_id) / str(fence), ignore_errors=True)

    def result_path(self, job: JobSummary, name: str) -> Path:
        """Give the path of a result of a succeeded job.

        Raises:
            ArtifactNotFound: it has no result of that name.
            ResultLost: it had one, and the disk has it no longer.
        """
        if name not in job.artifacts:
            known = ", ".join(sorted(job.artifacts)) or f"nothing yet, it is {job.state}"
            raise ArtifactNotFound(f"job {job.id} has no {name}; it has: {known}")
        path = self.path(job.id) / str(job.fence) / name
        if not path.is_file():
            raise ResultLost(
                f"{name} of job {job.id} is no longer on the server's disk: run the job again, or have the "
                "operator restore the data folder"
            )
        return path

    def stages_folder(self, job_id: str) -> Path:
        """Give the path of what a job's attempts leave to the next one, which need not be there."""
        return self.path(job_id) / "stages"

    def discard(self, job_id: str) -> None:
        """Remove a job's folder: its results and its records."""
        discard_folder(self.path(job_id))

    def keep_only_result(self, job: JobRecord) -> None:
        """Remove what the lost attempts at a job that has ended have made, and what they left to the next."""
        for folder in self.path(job.id).iterdir():
            if folder.is_dir() and not (job.artifacts and folder.name == str(job.fence)):
                discard_folder(folder)

    def finish_discarding(self) -> None:
        """Remove the rest of the folders that a killed process was removing."""
        for parent in (self._jobs, *self._jobs.glob("*")):
            remove_discarded(parent)
