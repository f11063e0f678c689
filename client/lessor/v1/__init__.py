"""The protobuf messages and stubs of ``lessor.v1``, generated from ``protos/`` by ``protos/build.py``."""
