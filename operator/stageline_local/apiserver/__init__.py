"""A Kubernetes API server in one process, for one machine and for tests.

Objects in memory, HTTP on loopback: what kubectl, kopf and other clients know of a real one, with
schemas, server-side apply, selectors, watches, graceful deletion and printed tables. There is no
garbage collection in it, as there is none in a real one: that is a controller's work.
"""

from stageline_local.apiserver.server import ApiServer, Request, served

__all__ = ["ApiServer", "Request", "served"]
