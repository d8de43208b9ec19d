"""Whom the services trust when they call each other by https."""

import ssl

import certifi


def tls_context(url: str = "https:") -> ssl.SSLContext:
    """Trust the usual authorities, the machine's own, and those that SSL_CERT_FILE or SSL_CERT_DIR name.

    For a URL that is not https trust nobody: reading all the authorities takes as long as a hundred requests.
    """
    if not url.lower().startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context
