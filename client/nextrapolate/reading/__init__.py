"""A report, read for somebody who has ten seconds: did it work, why, how sure is that, and what next.

`read` decides which case a report is, and each case is one function that says all of it: the headline, the
verdict, the four answers, and what to type next. The worker writes the verdict into report.json; the report's
page, the service's pages, notebooks and the terminal print what is here, and decide nothing themselves.

    extrapolation.py    what was made, and whether to use it
    comparison.py       which method did best
    inspection.py       whether a run is worth extrapolating
    parts.py            a reading, and the sentences that more than one of them says
"""

from nextrapolate.reading.comparison import read_comparison
from nextrapolate.reading.extrapolation import read_extrapolation
from nextrapolate.reading.inspection import read_inspection
from nextrapolate.reading.parts import Commands, Reading
from nextrapolate.schemas import AnyReport, Comparison, Inspection, Report

__all__ = ["Commands", "Reading", "read"]


def read(report: AnyReport) -> Reading:
    """Answer the questions that a report is opened with; its own `verdict` is not looked at."""
    match report:
        case Report():
            return read_extrapolation(report)
        case Comparison():
            return read_comparison(report)
        case Inspection():
            return read_inspection(report)
