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
    ConsoleRoute("GET", "/engines", engines.show_engines),
    ConsoleRoute("GET", "/new/engine", engines.show_new),
    ConsoleRoute("POST", "/new/engine", engines.enable),
    ConsoleRoute("GET", "/engines/{mount}", engines.show_engine),
    ConsoleRoute("POST", "/engines/{mount}/tune", engines.tune),
    ConsoleRoute("POST", "/engines/{mount}/defaults", engines.set_defaults),
    ConsoleRoute("GET", "/engines/{mount}/disable", engines.ask_disable),
    ConsoleRoute("POST", "/engines/{mount}/disable", engines.disable),
    ConsoleRoute("GET", "/engines/{mount}/root", root.show_root),
    ConsoleRoute("POST", "/engines/{mount}/root", root.set_root),
    ConsoleRoute("POST", "/engines/{mount}/root/check", root.check_root),
    ConsoleRoute("POST", "/engines/{mount}/root/rotate", root.rotate_root),
    ConsoleRoute("GET", "/roles", roles.show_roles),
    ConsoleRoute("GET", "/new/role", roles.show_new),
    ConsoleRoute("POST", "/new/role/{mount}", roles.create),
    ConsoleRoute("POST", "/new/role/{mount}/check", roles.check),
    ConsoleRoute("POST", "/policy/check", roles.check_policy),
    ConsoleRoute("GET", "/roles/{mount}/{role}", roles.show_role),
    ConsoleRoute("POST", "/roles/{mount}/{role}", roles.save),
    ConsoleRoute("POST", "/roles/{mount}/{role}/check", roles.check),
    ConsoleRoute("GET", "/roles/{mount}/{role}/delete", roles.ask_delete),
    ConsoleRoute("POST", "/roles/{mount}/{role}/delete", roles.delete),
    ConsoleRoute("GET", "/issue", issue.show_form),
    ConsoleRoute("POST", "/issue", issue.issue),
    ConsoleRoute("GET", "/leases", leases.show_leases),
    ConsoleRoute("GET", "/leases/revoke-prefix", leases.ask_revoke_prefix),
    ConsoleRoute("POST", "/leases/revoke-prefix", leases.revoke_prefix),
    ConsoleRoute("GET", "/leases/revoking", leases.show_progress),
    ConsoleRoute("GET", "/leases/abandon", leases.ask_abandon),
    ConsoleRoute("POST", "/leases/abandon", leases.abandon),
    ConsoleRoute("POST", "/leases/renew", leases.renew),
    ConsoleRoute("POST", "/leases/revoke", leases.revoke),
    ConsoleRoute("GET", "/leases/{lease_id*}", leases.show_lease),
    ConsoleRoute("GET", "/stuck", stuck.show_stuck),
    ConsoleRoute("GET", "/static-roles", static_roles.show_static_roles),
    ConsoleRoute("GET", "/new/static-role", static_roles.show_new),
    ConsoleRoute("POST", "/new/static-role/{mount}", static_roles.put),
    ConsoleRoute("GET", "/static-roles/{mount}/{role}", static_roles.show_static_role),
    ConsoleRoute("POST", "/static-roles/{mount}/{role}/rotate", static_roles.rotate),
    ConsoleRoute("POST", "/static-roles/{mount}/{role}/resume", static_roles.resume),
    ConsoleRoute("POST", "/static-roles/{mount}/{role}/key", static_roles.show_key),
    ConsoleRoute("GET", "/static-roles/{mount}/{role}/delete", static_roles.ask_delete),
    ConsoleRoute("POST", "/static-roles/{mount}/{role}/delete", static_roles.delete),
    ConsoleRoute("GET", "/events", events.show_events),
    ConsoleRoute("GET", "/events/stream", events.stream_events),
    ConsoleRoute("GET", "/whoami", whoami.show_whoami),
)
"""The first route that matches a path serves it."""
