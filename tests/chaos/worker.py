"""The worker as it is, but for the birth of its children: they come from the hatchery."""

import os
import sys

from chaos import hatchery
from nextrapolate_worker import nursery
from nextrapolate_worker.app import app as app

nursery.CHILD_COMMAND = (sys.executable, "-S", hatchery.__file__, "hatch", os.environ["CHAOS_HATCHERY"])
