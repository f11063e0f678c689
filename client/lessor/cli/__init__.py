"""The command line: each RPC as a command, for people and for scripts."""

import sys

from lessor.cli import hang_ups

hang_ups.ignore_early(sys.argv[1:])  # before the imports of a command, which take time
