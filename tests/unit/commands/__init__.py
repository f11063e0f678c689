"""Tests of the commands of the server."""
