"""Runs all checks of ``lessor server --check --deep``: nothing is started, and nothing is changed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lessor.findings import Finding, Grade
from lessor_server.access_reload import load_rules
from lessor_server.adapters.aws.sdk_session import CaBundleUnusable, require_ca_bundle
from lessor_server.adapters.sealing.keyring import Keyring
from lessor_server.commands.deep_check import access, aws, machine, store
from lessor_server.commands.deep_check.shared_store import check_shared_store
from lessor_server.domain.access.rule_warnings import find_warnings
from lessor_server.domain.errors.base import LessorError
from lessor_server.services.permissions import path_shapes
from lessor_server.settings.model import Settings, load
from lessor_server.settings.sources import Problem, SettingsError

AWS_SECONDS: Final = 120.0
"""The timeout of all checks on AWS together."""


async def check_set_up(file: Path | None, environ: Mapping[str, str]) -> list[Finding]:
    """Check the settings and everything that a server with them needs."""
    try:
        settings = load(file, environ)
        rules = load_rules(settings.access.file)
    except SettingsError as error:
        return [_problem(one) for one in error.problems]
    found = [Finding.good("settings", "the settings are valid")]
    found += [_warning("settings", one, "change the setting") for one in settings.warnings]
    found += [_warning("access", one, "change the rule") for one in find_warnings(rules, path_shapes())]
    found += access.check_root_token(settings)
    found += access.check_tokens(rules, machine.read_wall_clock())
    found += await access.check_issuers(rules)
    found += machine.check_certificates(settings.tls, machine.read_wall_clock())
    found += machine.check_traces(environ)
    holder = ""
    if not settings.store.is_shared:
        found.append(machine.check_directory(settings.data_dir))
        found.append(machine.check_disk(settings.data_dir))
        holder = machine.read_lock_holder(settings.data_dir)
        found.append(machine.check_lock(settings.data_dir, holder))
    found += machine.check_audit(settings)
    if settings.store.is_shared:
        found += machine.check_addresses(settings)
        found += await check_shared_store(settings)
    elif holder:
        text = f"the server with pid {holder} has it open, so key, schema and roots were not checked"
        fix = "ask the server: lessor info, lessor config root check; or run this while it is stopped"
        found.append(Finding.doubtful("database", text, fix))
    else:
        found += machine.check_addresses(settings)
        found += await _check_database(settings)
    if not any(one.check == "aws" and one.grade is not Grade.WARN for one in found):
        found += await aws.check_endpoint(settings)  # no root was asked
    return found


async def _check_database(settings: Settings) -> list[Finding]:
    try:
        require_ca_bundle()
        async with store.open_file_copies(settings.data_dir) as copy:
            schema, stored = await store.check_schema(copy, may_migrate=settings.store.migrate is not False)
            if stored is None:
                return [schema]
            key, keyring = await store.check_key(settings, stored)
            return [schema, key, *(await _check_roots(settings, copy, keyring) if keyring else [])]
    except CaBundleUnusable as error:
        return [Finding.bad("aws", error.message, error.fix)]
    except OSError as error:
        fix = "make room, and let the server's user read and write it"
        return [Finding.bad("database", f"{error.filename} can't be used: {error.strerror}", fix)]


async def _check_roots(settings: Settings, copy: Path, keyring: Keyring) -> list[Finding]:
    found = list[Finding]()
    try:
        async with (
            store.open_copy(copy, keyring) as opened,
            aws.open_roots(settings, opened, keyring) as roots,
            asyncio.timeout(AWS_SECONDS),
        ):
            async for finding in aws.check_roots(roots):
                found.append(finding)
            found += await store.check_rows(opened)
    except LessorError as error:
        found.append(Finding.bad("database", error.message, error.fix))
    except TimeoutError:
        text = f"AWS did not answer all questions within {AWS_SECONDS:g} s"
        found.append(Finding.bad("aws", text, "check the network to AWS, and ask again"))
    return found


def _problem(problem: Problem) -> Finding:
    where = ": ".join(filter(None, (problem.where, problem.setting, problem.problem)))
    return Finding.bad("settings", where, problem.fix)


def _warning(check: str, text: str, otherwise: str) -> Finding:
    """Return a warning ``problem; fix``; ``otherwise`` is the fix of one that names none."""
    problem, _, fix = text.partition("; ")
    return Finding.doubtful(check, problem, fix or otherwise)
