"""Holds the protobuf messages and stubs of ``lessor.v1``, made from ``protos/`` by ``protos/build.py``."""
