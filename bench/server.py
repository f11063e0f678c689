"""The server as it is, or with a part of its surroundings replaced by one that answers at once.

``python -m bench.server PARTS`` runs ``lessor server`` with the settings of the environment. PARTS are
``real``, ``no_sdk`` (AWS answers at once) or ``no_store`` (the store does so too). The wiring under
measurement is the product's own: only the constructors of these two adapters are exchanged in it.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from unittest.mock import patch

from bench.instant import InstantAws, open_instant_store
from lessor_server import app
from lessor_server.commands.server import run_server
from lessor_server.settings.model import load

REAL, NO_SDK, NO_STORE = "real", "no_sdk", "no_store"

_EXCHANGED: dict[str, dict[str, object]] = {
    REAL: {},
    NO_SDK: {"AwsGateway": InstantAws},
    NO_STORE: {"AwsGateway": InstantAws, "open_store_of": open_instant_store},
}


def main() -> None:
    """Serve until told to stop."""
    with ExitStack() as stack:
        for name, part in _EXCHANGED[sys.argv[1]].items():
            stack.enter_context(patch.object(app, name, part))
        run_server(load(None, os.environ), None)


if __name__ == "__main__":
    main()
