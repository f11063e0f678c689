"""Leases that stay valid for a process: issued, renewed, replaced, cached, served, and revoked at the end."""
