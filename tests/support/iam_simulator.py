"""IAM's policy simulator: the permissions of a principal by its own policies.

Follows API_SimulatePrincipalPolicy and reference_policies_evaluation-logic: an explicit Deny before an Allow,
and without either ``implicitDeny``. Conditions, boundaries and policy variables are not modelled: a statement
with a condition allows nothing here, and a Deny with one denies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

from tests.support.iam_actions import Action, Params
from tests.support.iam_groups import of_group
from tests.support.iam_rules import RefusalError, Result, missing

if TYPE_CHECKING:
    from tests.support.iam_account import Account

_ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
_AWS_DOCUMENTS = {"arn:aws:iam::aws:policy/AdministratorAccess": _ALL}


def _simulate(iam: Account, p: Params) -> Result:
    source, actions = p.need("PolicySourceArn"), p.texts("ActionNames")
    resources = p.texts("ResourceArns") or ["*"]
    if not re.fullmatch(r"arn:aws:iam::[0-9]{12}:(user|group|role)/.+", source):
        message = f"Invalid Entity Arn: {source} does not clearly define entity type and name."
        raise RefusalError(400, "InvalidInput", message)
    documents = None if _is_root(iam, source) else list(_documents(iam, source))
    results = [
        {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": _decision(iam, documents, action, resource),
        }
        for action in actions
        for resource in resources
    ]
    # "IAM might return fewer than the MaxItems number of results even when there are more" (its Response).
    begin = int(p.text("Marker", "0"))
    end = begin + iam.sts.simulated_a_page
    page: Result = {"EvaluationResults": results[begin:end], "IsTruncated": end < len(results)}
    return {**page, "Marker": str(end)} if end < len(results) else page


def _is_root(iam: Account, source: str) -> bool:
    """Return whether this is the service's own root before its user is created: it has every permission."""
    name = source.rpartition("/")[2]
    return source == iam.root_arn() and name.casefold() not in iam.users


def _documents(iam: Account, source: str) -> Iterator[str]:
    """Yield the documents of a principal's policies, its groups' included."""
    name = source.rpartition("/")[2]
    if ":role/" in source:
        if source not in iam.sts.roles:
            raise missing(f"The role with name {name} cannot be found.")
        yield _ALL
        return
    user = iam.get_user(name)
    yield from user.inline.values()
    arns = list(user.attached)
    for group in user.groups:
        policies = of_group(iam, group)
        yield from policies.inline.values()
        arns += policies.attached
    for arn in arns:
        document = iam.documents.get(arn) or _AWS_DOCUMENTS.get(arn)
        if document:
            yield document


def _decision(iam: Account, documents: list[str] | None, action: str, resource: str) -> str:
    scripted = iam.sts.verdicts.get(action)
    if scripted is not None or documents is None:
        return scripted or "allowed"
    effects = [
        statement["Effect"]
        for document in documents
        for statement in _statements(document)
        if _applies(statement, action, resource)
    ]
    if "Deny" in effects:
        return "explicitDeny"
    return "allowed" if "Allow" in effects else "implicitDeny"


def _statements(document: str) -> list[Mapping[str, object]]:
    statements = json.loads(document)["Statement"]
    return cast("list[Mapping[str, object]]", statements if isinstance(statements, list) else [statements])


def _applies(statement: Mapping[str, object], action: str, resource: str) -> bool:
    if "Condition" in statement and statement["Effect"] == "Allow":
        return False
    acts = _meets(statement, "Action", action.casefold(), fold=True)
    return acts and _meets(statement, "Resource", resource, fold=False)


def _meets(statement: Mapping[str, object], field: str, text: str, *, fold: bool) -> bool:
    negated = f"Not{field}" in statement
    value = statement.get(f"Not{field}" if negated else field)
    patterns = [str(one) for one in value] if isinstance(value, list) else [str(value)]
    met = any(_like(one.casefold() if fold else one, text) for one in patterns)
    return met != negated


def _like(pattern: str, text: str) -> bool:
    regex = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)
    return re.fullmatch(regex, text, re.DOTALL) is not None


SIMULATOR_ACTIONS: dict[str, Action] = {"SimulatePrincipalPolicy": _simulate}
"""The simulator's action."""
