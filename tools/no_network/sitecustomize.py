"""Loaded by every Python whose PYTHONPATH holds this folder: only this machine can be reached.

Kernels and the processes that they start are covered too, which a pytest plugin would not do.
"""

import socket

LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "", None}


class NetworkBlockedError(OSError):
    """A connection beyond this machine was tried."""


def _is_local(host):
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    return host in LOCAL or str(host).startswith("127.") or host == socket.gethostname()


def _refuse(host):
    raise NetworkBlockedError(f"the network is blocked here; {host!r} was asked for")


def _guard(name):
    original = getattr(socket.socket, name)

    def guarded(self, *args):
        address = args[-1]  # sendto(data, address), sendto(data, flags, address)
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
            _refuse(address[0])
        return original(self, *args)

    setattr(socket.socket, name, guarded)


def _guard_lookup(name):
    original = getattr(socket, name)

    def guarded(host, *args, **kwargs):
        if not _is_local(host):
            _refuse(host)
        return original(host, *args, **kwargs)

    setattr(socket, name, guarded)


for _name in ("connect", "connect_ex", "sendto"):
    _guard(_name)
for _name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    _guard_lookup(_name)
