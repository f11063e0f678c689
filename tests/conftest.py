"""What holds for all tests: signals reach what they start, how hypothesis searches, what runs first.

Hypothesis tries the same examples in each run, unless its profile `fresh` is asked for.
"""

from __future__ import annotations

import gc
import importlib
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.signals import restore_signals

# No deadline and no check of speed: how long an example takes is the machine's to say.
settings.register_profile(
    "repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fresh", settings.get_profile("repeatable"), derandomize=False, max_examples=1000)
settings.load_profile("repeatable")

TESTS = Path(__file__).parent

LONGEST = (
    *("tests/e2e/test_replica_kills.py", "tests/e2e/test_readme.py"),
    *("tests/conformance/test_postgres_lost_commits.py", "tests/e2e/test_dev.py"),
    *("tests/e2e/test_postgres.py", "tests/e2e/test_rotation.py"),
    *("tests/e2e/test_workers.py", "tests/e2e/test_replicas.py"),
    *("tests/unit/engine/test_rotation_crash.py", "tests/e2e/test_demo.py"),
    *("tests/e2e/test_sdks.py", "tests/e2e/test_secrets_in_memory.py"),
    *("tests/e2e/test_sealing_kms.py", "tests/e2e/test_start_and_stop.py"),
    *("tests/simulation/test_deaths.py", "tests/e2e/test_hostile_callers.py"),
    *("tests/e2e/test_kill.py", "tests/conformance/test_store_malformed.py"),
    *("tests/conformance/test_store_extremes.py", "tests/e2e/test_deep_check.py"),
    *("tests/simulation/test_seeds.py", "tests/conformance/test_tampered_rows.py"),
    *("tests/e2e/test_aws_failures.py", "tests/e2e/test_audit.py"),
    *("tests/conformance/test_store_machine.py", "tests/e2e/test_restarts_and_backups.py"),
    *("tests/e2e/test_bench.py", "tests/unit/engine/test_shared_rate.py"),
    *("tests/unit/engine/test_crash.py", "tests/conformance/test_store_owners.py"),
    *("tests/e2e/test_cli_upkeep.py", "tests/e2e/test_access_docs.py"),
    *("tests/e2e/test_clients_docs.py", "tests/e2e/test_import_vault.py"),
    *("tests/e2e/test_examples.py", "tests/e2e/test_node_client.py"),
    *("tests/unit/test_house.py", "tests/unit/test_patterns.py"),
)
"""Files that take long, the longest first: with ``--dist loadfile`` one that begins last is the last."""

COMMAND_LINE = ("tests/unit/client/", "tests/unit/commands/")
"""Folders whose tests are those of the command line and the Python client: `make test-clients` runs them."""

SERVER_ALONE = "not fire and not clients"
"""Which tests `make test` runs."""

OF_CLIENTS = re.compile(r"^pytestmark = (?:\[[^]=]*)?\bpytest\.mark\.(?:clients|fire)\b", re.MULTILINE)
"""Marks a file all of whose tests `make test` leaves out."""

COMPILED = f".{sys.implementation.cache_tag}-pytest-{pytest.__version__}.pyc"
"""How the name of a test file ends that pytest has compiled."""

GARBAGE = 20_000
"""How many objects a test makes before Python searches them for cycles: most tests make fewer."""


def pytest_configure() -> None:
    """Collect no garbage for now."""
    gc.disable()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import the files that pytest has not compiled yet, in another order in each process of a whole run.

    pytest keeps what it compiles, so the processes share the work of a first run.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or session.config.args != session.config.getini("testpaths"):
        return
    files = sorted(TESTS.rglob("test_*.py"))
    begin = len(files) * int(worker.removeprefix("gw")) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    for file in files[begin:] + files[:begin]:
        is_compiled = (file.parent / "__pycache__" / f"{file.stem}{COMPILED}").exists()
        if is_compiled or is_left_out(file, session.config):
            continue
        with suppress(Exception):  # pytest imports it again, and reports the error
            importlib.import_module(".".join(file.relative_to(TESTS.parent).with_suffix("").parts))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file that would be left out anyway."""
    return is_left_out(collection_path, config) or None


def is_left_out(path: Path, config: pytest.Config) -> bool:
    """Return whether the run leaves out all tests of a file."""
    if config.option.markexpr != SERVER_ALONE or path.suffix != ".py":
        return False
    name = path.relative_to(TESTS.parent).as_posix()
    return name.startswith(COMMAND_LINE) or bool(OF_CLIENTS.search(path.read_text(encoding="utf-8")))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Make what a test starts open to signals, however pytest was started, and whatever ran before.

    A command that serves ignores SIGHUP from its first line on, also if a test runs it in this process.
    """
    restore_signals()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the command line before pytest selects by marks; run the longest files first."""
    for item in items:
        if item.nodeid.startswith(COMMAND_LINE):
            item.add_marker(pytest.mark.clients)
    order = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.nodeid.partition("::")[0], len(LONGEST)))


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but not the tests themselves: there are thousands."""
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)
    gc.enable()
