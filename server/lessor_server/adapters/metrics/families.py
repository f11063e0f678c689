"""Every family of metrics: its name, kind, labels and help. The page docs/metrics.md is made from these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
OTHER: Final = "_other"
"""The label of what has no label of its own, because the number of labels is limited."""
UNKNOWN: Final = "unknown"
MAX_ROLES: Final = 500
MAX_MOUNTS: Final = 100
ASKED_HOLD: Final = "asked"
HOLDS: Final = ("clock_untrusted", "store_rolled_back", "first_sweep", "stored_hold_unreadable", ASKED_HOLD)
"""The reasons for which expiry is held; an operator's own text counts as the last one."""
PRIORITIES: Final = ("asked", "issue", "expiry", "check")
"""The priorities of calls that wait for the rate limiter, the first goes first."""

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_LONG: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0)


@dataclass(frozen=True, slots=True)
class Family:
    """One family; a histogram has the upper bounds of its ``buckets``, in seconds."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


LEASES: Final = Family(
    "lessor_leases",
    GAUGE,
    ("mount", "state"),
    "Leases by what callers see: intent, active, revoking, abandoned. Every replica reports all: use max().",
)
ROLE_LEASES: Final = Family(
    "lessor_role_leases",
    GAUGE,
    ("mount", "role", "state"),
    f"Leases of the {MAX_ROLES} largest roles, and of each mount's other roles as _other.",
)
LEASES_STUCK: Final = Family(
    "lessor_leases_stuck",
    GAUGE,
    (),
    "Leases whose revocation AWS has refused at least 6 times. A right is missing, or a policy denies.",
)
OLDEST_OVERDUE: Final = Family(
    "lessor_oldest_overdue_seconds",
    GAUGE,
    (),
    "How long the oldest due revocation has been waiting; 0 if none is. It grows while AWS does not answer.",
)
SNAPSHOT_AGE: Final = Family(
    "lessor_snapshot_age_seconds",
    GAUGE,
    (),
    "The age of the numbers of leases, which are read every 10 s. It grows while the store does not answer.",
)
REVOCATION_LAG: Final = Family(
    "lessor_revocation_lag_seconds",
    HISTOGRAM,
    (),
    "From when a revocation was due until AWS acknowledged that the access key is deleted.",
    _LONG,
)
ISSUE: Final = Family(
    "lessor_issue_seconds",
    HISTOGRAM,
    ("type", "outcome"),
    "The time of an issue: ok, refused (somebody must fix the reason), failed (to be retried).",
    _SECONDS,
)
ISSUE_PHASE: Final = Family(
    "lessor_issue_phase_seconds",
    HISTOGRAM,
    ("phase",),
    "The phases of an issue: store (the intent), aws_1 (CreateUser, or the session), aws_2 (all other calls),"
    " activate.",
    _SECONDS,
)
AWS_CALLS: Final = Family(
    "lessor_aws_calls",
    COUNTER,
    ("mount", "action", "code"),
    "Requests to AWS by action and code: ok, AWS's error code, unreadableanswer, or no_answer, which network"
    " errors are too.",
)
AWS_CALL: Final = Family(
    "lessor_aws_call_seconds", HISTOGRAM, ("action",), "The time of a request to AWS.", _SECONDS
)
AWS_RATE: Final = Family(
    "lessor_aws_rate",
    GAUGE,
    ("mount",),
    "The current limit of calls to AWS per second, of the account of a mount. It falls when AWS throttles.",
)
AWS_QUEUE: Final = Family(
    "lessor_aws_queue",
    GAUGE,
    ("priority",),
    "Calls to AWS that wait for the rate limiter: asked, issue, expiry, check.",
)
EXPIRY_HELD: Final = Family(
    "lessor_expiry_held", GAUGE, ("reason",), "1 for the reason for which no lease expires, else 0."
)
CLOCK_SKEW: Final = Family(
    "lessor_clock_skew_seconds",
    GAUGE,
    (),
    "How far the machine's clock is ahead of AWS's, to about a second, by the last answer that was compared.",
)
ACCOUNT_USERS: Final = Family(
    "lessor_account_users", GAUGE, ("mount",), "IAM users in the account of a mount, Lessor's and others."
)
ACCOUNT_QUOTA: Final = Family(
    "lessor_account_users_quota", GAUGE, ("mount",), "The quota of IAM users in the account of a mount."
)
KEY_AGE: Final = Family(
    "lessor_root_key_age_seconds",
    GAUGE,
    ("mount",),
    "The age of the access key of a mount's root, by AWS's clock. Roots without a stored key have none.",
)
STORE_COMMIT: Final = Family(
    "lessor_store_commit_seconds",
    HISTOGRAM,
    (),
    "The time of one commit of the store, which may have the writes of many calls.",
    _SHORT,
)
LOOP_LAG: Final = Family(
    "lessor_loop_lag_seconds",
    GAUGE,
    (),
    "The longest delay of the event loop in the last 30 to 60 seconds.",
)
AUDIT_UP: Final = Family(
    "lessor_audit_sink_up", GAUGE, ("sink",), "1 if an audit sink can be written to, else 0."
)
HANDLED: Final = Family(
    "grpc_server_handled",
    COUNTER,
    ("grpc_service", "grpc_method", "grpc_code"),
    "Calls that have ended, by their status code.",
)
HANDLING: Final = Family(
    "grpc_server_handling_seconds",
    HISTOGRAM,
    ("grpc_service", "grpc_method"),
    "The time of a call from its metadata to its end; of a stream, its life.",
    _SECONDS,
)
READY: Final = Family("lessor_ready", GAUGE, (), "1 while calls are served, else 0: as /readyz.")
WARNINGS: Final = Family(
    "lessor_warnings",
    GAUGE,
    ("about",),
    "Warnings that lessor info shows: files, replicas, unreadable_rows, tampered_rows. Read every 10 s.",
)
CERTIFICATE_EXPIRY: Final = Family(
    "lessor_certificate_expiry_timestamp_seconds",
    GAUGE,
    (),
    "When the server's certificate expires, in seconds since the epoch. A server without TLS has no sample.",
)
BUILD: Final = Family("lessor_build_info", GAUGE, ("version",), "1, with the version of the server.")

FAMILIES: Final = (
    LEASES,
    ROLE_LEASES,
    LEASES_STUCK,
    OLDEST_OVERDUE,
    SNAPSHOT_AGE,
    REVOCATION_LAG,
    ISSUE,
    ISSUE_PHASE,
    AWS_CALLS,
    AWS_CALL,
    AWS_RATE,
    AWS_QUEUE,
    EXPIRY_HELD,
    CLOCK_SKEW,
    ACCOUNT_USERS,
    ACCOUNT_QUOTA,
    KEY_AGE,
    STORE_COMMIT,
    LOOP_LAG,
    AUDIT_UP,
    READY,
    WARNINGS,
    CERTIFICATE_EXPIRY,
    HANDLED,
    HANDLING,
    BUILD,
)
"""All families, in the order of the page."""
