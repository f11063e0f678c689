"""The command line: each RPC for a person, and for scripts."""
