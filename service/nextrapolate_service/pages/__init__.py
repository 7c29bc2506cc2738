"""The pages: what people look at, made on the server, and whole without a script.

    site.py          all of them, put into the app
    negotiation.py   which answer an address gives: the page or JSON
    headers.py       what browsers may do with an answer
    rendering.py     templates; wording.py has jobs in plain words
    signing_in.py    the API key once, a session from then on
    jobs.py, submitting.py, series.py, comparison.py, methods.py, reports.py   a page or two each
    found.py         jobs by state and text, page by page
    runs.py          the runs that jobs are over, by name
    forms.py         what forms bring; parameters.py: a method's parameters as fields
    asking.py        the form in which a job is asked for
    failures.py      a problem as a page

An address that the API has as well gives its page to callers who ask for HTML, and to nobody else.
"""
