"""The HTTP edge: a listener for HTTP/1.1 beside gRPC's, and the faces that it serves.

The edge has no rule of its own: each face calls the methods of our services through the guard, with the same
identities, policies, limits and audit as gRPC.

- ``edge`` opens the listener, checks the Host header, and gives each request to the first face with its path.
- ``connections`` bounds what a stranger can send or hold open.
- ``exchange`` is one call: who calls (``credential_of``), its message, and its deadline.
- ``calls`` serves a method by its name: ``await calls.serve("RoleService.GetRole", exchange)``.
- ``answers`` has what all faces answer: JSON, errors, the statuses of errors.
- ``vault`` is Vault's API, below ``/v1/``. ``console`` has pages for browsers, at every other path.

**How a face adds routes.** A face is a class with ``owns(path)`` and ``answer(request)`` (``edge.Face``). It
gets the ``Calls``; http_faces.py lists it among the faces, ``vault`` first. For each request it creates an
``HttpExchange`` with a coroutine function that reads the body and returns the protobuf message; the guard
awaits that only after it has identified the caller. ``Calls.serve`` returns the answer, or raises the
``CallRefused`` that the face shows in its own form::

    async def show_role(self, request: BaseRequest) -> StreamResponse:
        async def ask() -> role_pb2.GetRoleRequest:
            return role_pb2.GetRoleRequest(mount="aws", name="reader")

        exchange = HttpExchange(request, ask, credential=self._session_credential(request))
        try:
            role = await self._calls.serve("RoleService.GetRole", exchange)
        except CallRefused as refused:
            return self._refuse(refused)

A method with a stream of answers gets ``write``, a coroutine function that sends one message; without it the
last message is the answer. ``seconds=None`` is for lasting streams, which have no deadline.
"""
