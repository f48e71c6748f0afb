"""The address of a server."""

import socket

from etude.errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """Open a port; 0 is a free one. Raises UserError if that is impossible."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # from now on connections wait for the server
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else "ports are 0 to 65535"
        raise UserError(f"can't listen on {host}, port {port}: {reason}: choose another --port") from None
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the URL of an open port."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
