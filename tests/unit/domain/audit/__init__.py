"""Tests of audit records and their chain."""
