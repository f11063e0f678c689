"""Requests from the arguments of methods."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from lessor.arguments import PolicyLike, build_request, span
from lessor.v1 import config_pb2, creds_pb2, role_pb2
from lessor.values import InvalidValue

POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
TEXT = '{"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}'


@pytest.mark.parametrize("value", [timedelta(minutes=90), "1h30m", "5400", 5400, 5400.0])
def test_a_duration_is_a_timedelta_a_text_or_seconds(value: timedelta | str | float) -> None:
    assert span(value) == timedelta(minutes=90)


@pytest.mark.parametrize("value", [True, float("nan"), float("inf"), "soon", [], 1e300])
def test_another_duration_is_refused(value: float | str) -> None:
    with pytest.raises(InvalidValue):
        span(value)


def test_a_policy_is_a_dict_json_or_a_path(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(TEXT, encoding="utf-8")
    sources: list[PolicyLike] = [POLICY, TEXT, f"\n {TEXT}", file, str(file), f"@{file}"]
    for source in sources:
        request = build_request(role_pb2.PutRoleRequest, {"name": "app", "policy_document": source})
        assert MessageToDict(request.role.policy_document) == POLICY


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"a": object()}, "policy_document: the policy contains a value that JSON does not have"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ("nowhere.json", "policy_document: nowhere.json can't be read: No such file"),
        (7, "policy_document: a int is not a policy; give a dict, JSON text or a path"),
        ({"a": 2**60}, "can't represent exactly"),
    ],
)
def test_a_policy_that_cannot_be_read_names_its_argument(source: PolicyLike, said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        build_request(role_pb2.PutRoleRequest, {"policy_document": source})


def test_the_fields_of_the_message_in_a_request_are_arguments() -> None:
    request = build_request(
        role_pb2.PutRoleRequest,
        {
            "mount": "eu",
            "name": "app",
            "credential_type": "assumed_role",
            "role_arns": ["arn:1", "arn:2"],
            "iam_tags": {"team": "blue"},
            "default_ttl": "1h",
            "update_mask": ["iam_tags"],
            "max_ttl": None,
        },
    )
    expected = role_pb2.PutRoleRequest(
        mount="eu",
        role=role_pb2.Role(
            name="app",
            credential_type=role_pb2.Role.ASSUMED_ROLE,
            role_arns=["arn:1", "arn:2"],
            iam_tags={"team": "blue"},
        ),
    )
    expected.role.default_ttl.FromSeconds(3600)
    expected.update_mask.paths.append("iam_tags")
    assert request == expected


def test_a_list_of_messages_takes_messages_and_dicts() -> None:
    steps = [{"role_arn": "arn:1"}, config_pb2.AssumeStep(role_arn="arn:2", external_id="x")]
    request = build_request(config_pb2.SetRootRequest, {"assume_chain": steps})
    assert [step.role_arn for step in request.config.assume_chain] == ["arn:1", "arn:2"]


def test_an_empty_mask_and_an_empty_policy_are_sent() -> None:
    request = build_request(role_pb2.PutRoleRequest, {"policy_document": {}, "update_mask": []})
    assert request.HasField("update_mask")
    assert request.role.HasField("policy_document")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"role_arns": "arn:1"}, "role_arns: is not a list"),
        ({"credential_type": "IAM"}, "credential_type: 'IAM' is not known; use one of IAM_USER, ASSUMED"),
        ({"name": 7}, "name: "),
        ({"iam_tags": {"a": 1}}, "iam_tags: "),
        ({"max_leases": "many"}, "max_leases: "),
        ({"default_ttl": "soon"}, "default_ttl: 'soon' is not a valid duration; write it as 1h30m"),
    ],
)
def test_a_value_of_another_type_names_its_argument(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidValue, match=said):
        build_request(role_pb2.PutRoleRequest, fields)


def test_a_secret_of_another_type_is_in_no_error() -> None:
    with pytest.raises(InvalidValue, match="mfa_code: has the wrong type") as refused:
        build_request(creds_pb2.GenerateCredentialsRequest, {"mfa_code": 123456})
    assert "123456" not in str(refused.value)
    assert refused.value.__cause__ is None
