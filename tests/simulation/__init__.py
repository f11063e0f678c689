"""Proves the engine in a world of its own: seeded chance, virtual time, faults of every kind, then calm."""
