"""The worker, with children that are forked by the hatchery which $HATCHERY names."""

import os
import sys

from hatchery import births
from nextrapolate_worker import nursery
from nextrapolate_worker.app import app as app

nursery.CHILD_COMMAND = (sys.executable, "-S", births.__file__, "hatch", os.environ["HATCHERY"])
