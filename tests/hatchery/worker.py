"""The worker, with children that are forked by the hatchery which $HATCHERY names."""

import os

from hatchery import births
from nextrapolate_worker import nursery
from nextrapolate_worker.app import app as app

nursery.CHILD_COMMAND = births.hatch_command(os.environ["HATCHERY"])
