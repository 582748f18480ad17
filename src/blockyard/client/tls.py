"""TLS as a worker, a Client and the command line use it: whom to trust, and what is wrong, as a sentence.

Nothing here decides when to connect. `trust` makes the context once, so that a bad file is refused before anything
runs; `complaint` turns what the handshake raised into what a person can do about it.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from blockyard.spec.errors import SpecError

STRANGER = "its certificate comes from an authority that is not in {ca}; give the right file with --tls-ca"
MISNAMED = "its certificate is not for '{name}'; use a name that is in it"
CODES = {
    9: "its certificate is not valid yet; the clock of this machine, or of the one that made it, is wrong",
    10: "its certificate has expired; renew it (or mend the clock of this machine)",
    18: "its certificate is signed by itself and is not in {ca}; give it, or its authority's, with --tls-ca",
    19: STRANGER,
    20: STRANGER,
    62: MISNAMED,
    64: MISNAMED,
}
"""What OpenSSL found in a certificate (X509_V_ERR_...), and what to do."""


@dataclass(frozen=True, slots=True)
class Trust:
    """How to connect by TLS."""

    context: ssl.SSLContext
    ca: str = ""
    """The file of certificate authorities; empty: the system's."""
    name: str = ""
    """The name that the certificate must have; empty: the host that is connected to."""

    def server_name(self, host: str) -> str:
        """Return the name that the certificate of `host` must have."""
        return self.name or host


def trust(*, tls: bool, ca: str = "", name: str = "") -> Trust | None:
    """Return how to connect, or None for without TLS. Raises SpecError for a file that holds no certificates.

    Each of the three means TLS: a name or an authority to check would otherwise be forgotten in silence.
    """
    if not (tls or ca or name):
        return None
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:  # ssl.SSLError is one too
        reason = "no certificate (PEM) is in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise SpecError(f"--tls-ca is '{ca}', which cannot be used: {reason}") from None
    return Trust(context, ca, name)


def distrust(error: BaseException, trust: Trust | None, address: str, host: str) -> str | None:
    """Say why the scheduler at `address` is not trusted: trying again soon would not help.

    None where a connection failed for want of a scheduler.
    """
    if trust is None or not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError):
        return None
    return f"the scheduler at {address} cannot be trusted: {complaint(error, trust, host)}"


def complaint(error: BaseException, trust: Trust, host: str) -> str:
    """Say why a TLS connection to `host` could not be made; half a sentence, with what to do.

    >>> complaint(ssl.SSLEOFError(), Trust(ssl.create_default_context()), "em")
    'it ended the TLS handshake; its log may say why'
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        said = CODES.get(error.verify_code, f"its certificate is not accepted: {error.verify_message}")
        return said.format(ca=trust.ca or "the system's certificates", name=trust.server_name(host))
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        return "it ended the TLS handshake; its log may say why"
    if getattr(error, "reason", "") in WITHOUT:
        return "it answers without TLS; start it with --tls-cert and --tls-key, or connect without TLS"
    return f"the TLS handshake failed: {getattr(error, 'reason', None) or error}"


WITHOUT = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG", "UNKNOWN_PROTOCOL")
"""What OpenSSL calls an answer that is not TLS; it differs by version."""
