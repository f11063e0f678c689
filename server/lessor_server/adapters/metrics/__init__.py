"""Metrics and probes over HTTP.

prometheus_client imports wsgiref, whose handler keeps a copy of the environment as it was at the import,
tokens and passwords included. The server removes those from the environment, so they must not stay in the
copy.
"""

from wsgiref.handlers import BaseHandler

BaseHandler.os_environ.clear()
