"""The service. gRPC's core logs directly to standard error, so its log is off unless configured."""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc is imported
