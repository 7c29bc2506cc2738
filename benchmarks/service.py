"""What the service costs beside the work itself: uploads, submits, and whole jobs.

    PYTHONPATH=tests python -m benchmarks.service [PART...] [--folder FOLDER] [--write]

uploads    an adapter of --mib, sent by the client; beside copying the file, flushing the copy and hashing it
submits    --clients callers who submit --jobs jobs, every write flushed, and no worker
latency    jobs on a run that is there already, from the request to the files of the result; beside the
           numerics alone, in a process that has done them before
stages     where the time of such jobs goes, as their reports tell it

Without a name all four are measured, below FOLDER: the disk that is to be measured, with room for three
adapters of --mib. Linux only: the peak of the API's memory is read from /proc.
"""

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks import latency, stages, submits, uploads
from benchmarks.written import add_write_option, write_section

PARTS = {
    "uploads": uploads.measured,
    "submits": submits.measured,
    "latency": latency.measured,
    "stages": stages.measured,
}


def main() -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    uploads.add_options(parser)
    submits.add_options(parser)
    latency.add_options(parser)
    add_write_option(parser)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}: choose of {', '.join(PARTS)}")
    for part in options.parts or PARTS:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measured = f"{PARTS[part](Path(folder), options)}\n\nLoad average then: {os.getloadavg()[0]:.1f}."
        print(f"\n{measured}", flush=True)
        if options.write:
            write_section(f"service-{part}", measured)


if __name__ == "__main__":
    main()
