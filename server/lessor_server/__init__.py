"""The service. gRPC's core writes to standard error past every logger, so it is silent unless asked."""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc is imported
