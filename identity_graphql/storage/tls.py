"""How a connection is encrypted, from the words of libpq, MySQL and Prisma."""

from __future__ import annotations

import os
import ssl

from identity_graphql.storage.parameters import Backend, Parameters, refusal

_TLS_MODES = {
    "disable": "disable",
    "allow": "allow",
    "prefer": "prefer",
    "require": "require",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
    "disabled": "disable",  # MySQL's words, in the same order
    "preferred": "prefer",
    "required": "require",
    "verify_ca": "verify-ca",
    "verify_identity": "verify-full",
    "false": "disable",  # ssl=
    "true": "require",
}
_POSTGRESQL_ROOT = "~/.postgresql/root.crt"


def encryption(backend: Backend, parameters: Parameters) -> str | ssl.SSLContext | None:
    """Returns how to encrypt, with the meaning of libpq: a word for the driver, or the context it needs."""
    mode = parameters.word("sslmode", _TLS_MODES)
    strict = parameters.word("sslaccept", {"strict": True, "accept_invalid_certs": False})  # Prisma's
    root, certificate, key = (parameters.text(name) for name in ("sslrootcert", "sslcert", "sslkey"))
    if certificate and not (key or root):
        root, certificate = certificate, None  # to Prisma, the authority; a client's certificate has a key
    if bool(certificate) != bool(key):
        raise refusal("the parameters 'sslcert' and 'sslkey' need each other")
    if strict is False and mode in {"verify-ca", "verify-full"}:
        raise parameters.refused("sslaccept", "contradicts 'sslmode'; leave one of them out")
    if strict is False:
        mode, root = mode or ("prefer" if backend is Backend.POSTGRESQL else "require"), None
    elif strict and mode != "disable":
        mode = "verify-full"
    files = root or certificate
    mode = mode or ("require" if files else None)
    if mode in {None, "disable", "allow", "prefer"}:
        if files:
            raise parameters.refused(
                "sslmode", "must be require, verify-ca or verify-full where certificates are given"
            )
        return mode
    if backend is Backend.POSTGRESQL:
        if mode == "require" and not files:
            return mode
        default = os.path.expanduser(_POSTGRESQL_ROOT)
        root = root or (default if strict is not False and os.path.exists(default) else None)
    if mode != "verify-full" and (root == "system" or (mode == "verify-ca" and not root)):
        raise refusal("sslmode=verify-ca needs the file of an authority in 'sslrootcert'; sslmode=verify-full does not")
    return _context(parameters, verify=mode, root=root, certificate=certificate, key=key)


def _context(
    parameters: Parameters, *, verify: str, root: str | None, certificate: str | None, key: str | None
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = verify == "verify-full"
    unreadable = ""
    try:
        if root and root != "system":
            unreadable = "sslrootcert" if parameters.text("sslrootcert") else "sslcert"
            context.load_verify_locations(root)
        elif verify == "verify-full":
            context.load_default_certs()
        else:
            context.verify_mode = ssl.CERT_NONE
        if certificate:
            unreadable = "sslkey"
            # Always a password: without one, OpenSSL would ask for it at the terminal.
            context.load_cert_chain(certificate, key, parameters.text("sslpassword") or "")
    except (OSError, ValueError):
        pass
    else:
        return context
    raise refusal(f"the file of the parameter {unreadable!r} cannot be read, or is not what it should be (PEM)")
