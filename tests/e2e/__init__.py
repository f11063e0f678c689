"""Tests over a real channel against a real server process, with the project's stand-in as AWS."""
