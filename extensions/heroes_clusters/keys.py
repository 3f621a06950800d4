"""Key pairs of service accounts: made here, private halves encrypted at rest and never shown."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from heroes.api.errors import Corrupt


@dataclass(frozen=True)
class KeyPair:
    """An Ed25519 key pair in OpenSSH's formats."""

    public_key: str
    private_key: str = field(repr=False)


def new_key_pair(comment: str) -> KeyPair:
    """A fresh key pair; the comment tells the centre whose it is."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return KeyPair(f"{key.public_key().public_bytes(encoding, form).decode()} {comment}", private.decode())


class Vault:
    """Encrypts what must not be read in a copy of the store: AES-128-CBC with HMAC-SHA-256 (Fernet), its key derived
    from a secret of the settings."""

    def __init__(self, secret: bytes) -> None:
        derived = hashlib.sha256(b"heroes service accounts\0" + secret).digest()
        self._fernet = Fernet(base64.urlsafe_b64encode(derived))

    def seal(self, text: str) -> str:
        """The encrypted text."""
        return self._fernet.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """The text; `Corrupt` when it was sealed with another secret or altered."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken:
            hint = "Start with the secret that the settings had when the service account was made."
            raise Corrupt("a service account's private key cannot be decrypted", hint=hint) from None

    def __repr__(self) -> str:
        return "Vault(***)"
