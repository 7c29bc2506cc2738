"""What /openapi.json tells those who have nothing else: validators, generators of clients, their users."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

Document = dict[str, Any]


@pytest.fixture
def document(client: TestClient) -> Document:
    found: Document = client.get("/openapi.json").json()
    return found


def body_of_a_job(document: Document) -> Document:
    content = document["paths"]["/jobs"]["post"]["requestBody"]["content"]
    schema: Document = content["application/json"]["schema"]
    return schema


def objects(part: Any) -> Iterator[Document]:
    if isinstance(part, dict):
        yield part
    for within in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        yield from objects(within)


def test_it_is_the_same_each_time(client: TestClient, document: Document) -> None:
    assert client.get("/openapi.json").json() == document


def test_it_is_a_valid_document(document: Document) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


@pytest.mark.parametrize(
    ("body", "allowed"),
    [
        ({"series": "x"}, True),
        ({"series": "x", "task": "extrapolate", "method": {"name": "relex"}}, True),
        ({"series": "x", "task": "backtest", "at": 50}, True),
        ({"series": "x", "task": "inspect"}, True),
        ({"series": "x", "at": 50}, False),
        ({"series": "x", "method": {"rank": 2}}, False),
        ({"series": "x", "task": "inspect", "method": {"name": "relex"}}, False),
    ],
)
def test_it_allows_a_job_just_where_the_server_takes_it(
    document: Document, client: TestClient, body: Document, allowed: bool
) -> None:
    schema = {"oneOf": body_of_a_job(document)["oneOf"], "components": document["components"]}
    assert OAS31Validator(schema).is_valid(body) is allowed
    answer = client.post("/jobs", json=body).json()
    assert (answer["code"] == "series-not-found") is allowed, answer


def test_a_job_s_body_says_by_its_task_which_it_is(document: Document) -> None:
    told = body_of_a_job(document)["discriminator"]
    assert told["propertyName"] == "task"
    assert {task: shape.rpartition("/")[2] for task, shape in told["mapping"].items()} == {
        "extrapolate": "JobCreate",
        "backtest": "BacktestCreate",
        "inspect": "InspectCreate",
    }


def test_all_numbers_are_wide_ones(document: Document) -> None:
    formats = {
        (schema["type"], schema.get("format"))
        for schema in objects(document)
        if schema.get("type") in ("integer", "number")
    }
    assert formats == {("integer", "int64"), ("number", "double")}


def test_no_union_has_a_constant(document: Document) -> None:
    """openapi-python-client takes no other value of one that has: it read no report."""
    within = [part for schema in objects(document) for part in schema.get("anyOf", ())]
    assert {"type": "string", "enum": ["auto"]} in within
    assert not any("const" in part for part in within)


def test_a_default_that_depends_is_not_told(document: Document) -> None:
    properties = document["components"]["schemas"]["NextMethod"]["properties"]
    assert "default" not in properties["alpha"], "a constructor would send it under preset=paper, too"
    assert properties["preset"]["default"] == "default"


def test_answers_name_their_headers(document: Document) -> None:
    jobs = document["paths"]["/jobs"]["post"]["responses"]
    assert "Location" in jobs["202"]["headers"]
    assert "Retry-After" in jobs["429"]["headers"]
    assert "WWW-Authenticate" in jobs["401"]["headers"]
    file = document["paths"]["/jobs/{job_id}/adapter/{file}"]["get"]["responses"]
    assert "Content-Range" in file["206"]["headers"]


def test_probes_ask_for_no_key(document: Document) -> None:
    assert document["paths"]["/livez"]["get"]["security"] == []
    assert document["webhooks"]["job-ended"]["post"]["security"] == []
    assert document["paths"]["/jobs"]["get"]["security"] != []
