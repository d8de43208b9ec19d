"""Whom the services trust when they call each other by https."""

import ssl

import certifi


def tls_context() -> ssl.SSLContext:
    """Trust the usual authorities, the machine's own, and those that SSL_CERT_FILE or SSL_CERT_DIR name."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context
