"""The service, and the settings of gRPC's core, which are read when grpc is imported.

The core logs directly to standard error, so its log is off unless configured. Its listener of before
EventEngine reads on the thread that Python waits with, which saves a change of threads for each message.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
