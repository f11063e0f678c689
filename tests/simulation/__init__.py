"""Simulates the engine with seeded randomness, virtual time, and faults of every kind, then none."""
