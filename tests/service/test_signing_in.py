"""Signing in to the pages, by the key or by an invitation, and out again."""

import pytest
from fastapi.testclient import TestClient
from fixtures.page_forms import Forms

from nextrapolate_store.store import Store


def test_who_has_no_session_is_asked_for_the_key_and_comes_back(visitor: TestClient, api_key: str) -> None:
    answer = visitor.get("/methods")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/login?next=/methods")
    form = Forms(visitor.get(answer.headers["Location"]).text).to("/login")
    answer = visitor.post("/login", data={**form, "key": api_key})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/methods")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert api_key not in cookie
    assert "weight-extrapolation" in visitor.get("/methods").text


def test_who_signs_in_comes_back_with_his_query(visitor: TestClient, api_key: str) -> None:
    wanted = "/?text=a%20b&state=failed"
    answer = visitor.get(wanted)
    form = Forms(visitor.get(answer.headers["Location"]).text).to("/login")
    assert visitor.post("/login", data={**form, "key": api_key}).headers["Location"] == wanted


def test_a_wrong_key_is_refused_in_words(visitor: TestClient) -> None:
    for wrong in ("", "nonsense", "nx_local_" + "0" * 64):
        answer = visitor.post("/login", data={"key": wrong})
        assert answer.status_code == 401
        assert 'role="alert"' in answer.text
        assert "Set-Cookie" not in answer.headers


def test_a_form_of_more_fields_than_any_of_ours_cannot_be_read(visitor: TestClient) -> None:
    answer = visitor.post("/login", data={f"field-{number}": "1" for number in range(201)})
    assert answer.status_code == 400
    assert "more than 200 fields" in answer.text


@pytest.mark.parametrize("target", ["https://elsewhere.example", "//elsewhere.example", "/\\elsewhere", "x"])
def test_signing_in_leads_nowhere_else(visitor: TestClient, api_key: str, target: str) -> None:
    answer = visitor.post("/login", data={"key": api_key, "next": target})
    assert answer.headers["Location"] == "/"


def test_signing_out_ends_the_session(browser: TestClient) -> None:
    token = dict(browser.cookies)
    assert browser.post("/logout").headers["Location"] == "/login"
    browser.cookies.update(token)
    assert browser.get("/").headers["Location"] == "/login?next=/&ended=page"
    assert "Your session has ended." in browser.get("/login?ended=page").text


@pytest.mark.parametrize("keeps_cookie", [True, False])
@pytest.mark.parametrize(
    ("referrer", "following"),
    [
        ("http://testserver/series/01S/ask?method=expo", "/series/01S/ask?method=expo"),
        ("http://testserver//elsewhere.example", "/"),
        ("http://elsewhere.example/series", "/"),
        ("http://[", "/"),
        (None, "/"),
    ],
)
def test_who_sends_a_form_after_the_session_has_ended_comes_back_to_it_and_is_told(
    browser: TestClient, referrer: str | None, following: str, keeps_cookie: bool
) -> None:
    """A key that is revoked ends a session before its cookie; after twelve hours both are over."""
    token = dict(browser.cookies)
    browser.post("/logout")
    if keeps_cookie:
        browser.cookies.update(token)
    answer = browser.post("/jobs", data={}, headers={"Referer": referrer} if referrer else {})
    page = browser.get(answer.headers["Location"]).text
    assert "nothing was done with what you sent" in page
    assert Forms(page).to("/login")["next"] == following


def test_an_invitation_lets_a_browser_in_once(visitor: TestClient, store: Store, api_key: str) -> None:
    invitation = store.sessions.invite(store.keys.get("tests"))
    page = visitor.get(f"/login?invitation={invitation}")
    assert visitor.get("/").status_code == 303, "looking at an invitation takes nothing"
    form = Forms(page.text).to("/login")
    assert visitor.post("/login", data=form).headers["Location"] == "/"
    assert visitor.get("/").status_code == 200
    again = visitor.post("/login", data=form)
    assert again.status_code == 401
    assert "this link was used before" in again.text
