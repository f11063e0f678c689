"""Tests of single modules, in the shape of the source tree."""
