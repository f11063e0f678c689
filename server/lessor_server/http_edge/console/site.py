"""All pages and actions of the console."""

from __future__ import annotations

from typing import Final

from lessor_server.http_edge.console.routes import ConsoleRoute
from lessor_server.http_edge.console.views import (
    engines,
    events,
    issue,
    leases,
    roles,
    root,
    static_roles,
    stuck,
    whoami,
)

ROUTES: Final = (
    ConsoleRoute("GET", "/", engines.show_first_page),
    ConsoleRoute("GET", "/engines", engines.show_engines),
    ConsoleRoute("GET", "/new/engine", engines.show_new_engine),
    ConsoleRoute("POST", "/new/engine", engines.enable_engine),
    ConsoleRoute("GET", "/engines/{mount}", engines.show_engine),
    ConsoleRoute("POST", "/engines/{mount}/tune", engines.tune_engine),
    ConsoleRoute("POST", "/engines/{mount}/defaults", engines.save_lease_defaults),
    ConsoleRoute("GET", "/engines/{mount}/disable", engines.ask_to_disable),
    ConsoleRoute("POST", "/engines/{mount}/disable", engines.disable_engine),
    ConsoleRoute("GET", "/engines/{mount}/root", root.show_root),
    ConsoleRoute("POST", "/engines/{mount}/root", root.save_root),
    ConsoleRoute("POST", "/engines/{mount}/root/check", root.check_stored_root),
    ConsoleRoute("POST", "/engines/{mount}/root/rotate", root.rotate_root_key),
    ConsoleRoute("GET", "/roles", roles.show_roles),
    ConsoleRoute("GET", "/new/role", roles.show_new_role),
    ConsoleRoute("POST", "/new/role/{mount}", roles.create_role),
    ConsoleRoute("POST", "/new/role/{mount}/check", roles.check_typed_role),
    ConsoleRoute("POST", "/policy/check", roles.check_typed_policy),
    ConsoleRoute("GET", "/roles/{mount}/{role}", roles.show_role),
    ConsoleRoute("POST", "/roles/{mount}/{role}", roles.save_role),
    ConsoleRoute("POST", "/roles/{mount}/{role}/check", roles.check_typed_role),
    ConsoleRoute("GET", "/roles/{mount}/{role}/delete", roles.ask_to_delete_role),
    ConsoleRoute("POST", "/roles/{mount}/{role}/delete", roles.remove_role),
    ConsoleRoute("GET", "/issue", issue.show_issue_form),
    ConsoleRoute("POST", "/issue", issue.issue_credential),
    ConsoleRoute("GET", "/leases", leases.show_leases),
    ConsoleRoute("GET", "/leases/revoke-prefix", leases.ask_to_revoke_prefix),
    ConsoleRoute("POST", "/leases/revoke-prefix", leases.revoke_under_prefix),
    ConsoleRoute("GET", "/leases/revoking", leases.show_progress),
    ConsoleRoute("GET", "/leases/abandon", leases.ask_to_abandon),
    ConsoleRoute("POST", "/leases/abandon", leases.abandon_lease),
    ConsoleRoute("POST", "/leases/renew", leases.renew_lease),
    ConsoleRoute("POST", "/leases/revoke", leases.revoke_lease),
    ConsoleRoute("GET", "/leases/{lease_id*}", leases.show_lease),
    ConsoleRoute("GET", "/stuck", stuck.show_stuck),
    ConsoleRoute("GET", "/static-roles", static_roles.show_static_roles),
    ConsoleRoute("GET", "/new/static-role", static_roles.show_new_static_role),
    ConsoleRoute("POST", "/new/static-role/{mount}", static_roles.save_static_role),
    ConsoleRoute("GET", "/static-roles/{mount}/{role}", static_roles.show_static_role),
    ConsoleRoute("POST", "/static-roles/{mount}/{role}/rotate", static_roles.rotate_static_key),
    ConsoleRoute("POST", "/static-roles/{mount}/{role}/resume", static_roles.resume_static_role),
    ConsoleRoute("POST", "/static-roles/{mount}/{role}/key", static_roles.show_static_key),
    ConsoleRoute("GET", "/static-roles/{mount}/{role}/delete", static_roles.ask_to_delete_static_role),
    ConsoleRoute("POST", "/static-roles/{mount}/{role}/delete", static_roles.remove_static_role),
    ConsoleRoute("GET", "/events", events.show_events),
    ConsoleRoute("GET", "/events/stream", events.stream_events),
    ConsoleRoute("GET", "/whoami", whoami.show_whoami),
)
"""The first route that matches a path serves it."""
