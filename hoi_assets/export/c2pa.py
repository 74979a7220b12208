"""C2PA manifests: a signed statement, inside a picture, of how it came to be (c2pa.org).

Needs the extra `c2pa` and a signing certificate of one's own. A signature holds random numbers, so
signed exports of equal versions differ in their bytes.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest_file
from hoi_assets.picture_marks import TRAINED

Sign = Callable[[bytes], bytes]
PNG = "image/png"


class Signer:
    """Signs PNG files with a certificate.

    Args:
        certificate: PEM file, the signer's certificate first, then those that vouch for it.
        key: PEM file of its private key, without a password.

    Raises:
        HoiError: the library is not there, a file cannot be read, or the key is of no known kind.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        try:
            import c2pa
        except ImportError as error:
            raise HoiError(
                "C2PA manifests need the library c2pa-python", "pip install 'hoi-assets[c2pa]'"
            ) from error
        self._c2pa = c2pa
        try:
            secret, chain = key.read_bytes(), certificate.read_bytes()
            self.certificate_digest = digest_file(certificate)
            info = c2pa.C2paSignerInfo(_algorithm(secret, key), chain, secret, None)
            self._signer: Any = c2pa.Signer.from_info(info)
        except OSError as error:
            raise HoiError(
                f"{error.filename} cannot be read: {error.strerror}", "name PEM files"
            ) from error
        except c2pa.C2paError as error:
            raise HoiError(
                f"{certificate} and {key} cannot sign: {error}",
                "give a certificate for document signing, with its chain, and its private key",
            ) from error

    def __call__(self, png: bytes) -> bytes:
        """The PNG file with a signed manifest: created by a trained model.

        Raises:
            HoiError: the library refuses; its message says why.
        """
        manifest = {
            "claim_generator_info": [{"name": "hoi-assets"}],
            "format": PNG,
            "assertions": [
                {
                    "label": "c2pa.actions",
                    "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": TRAINED}]},
                }
            ],
        }
        signed = io.BytesIO()
        try:
            builder = self._c2pa.Builder(json.dumps(manifest))
            builder.sign(self._signer, PNG, io.BytesIO(png), signed)
        except self._c2pa.C2paError as error:
            raise HoiError(
                f"a picture could not be signed: {error}",
                "check the certificate: c2pa.org names what it must allow",
            ) from error
        return signed.getvalue()


def signed_by(signer: Signer | None) -> dict[str, str]:
    """The options of a plan that say who signed."""
    return {} if signer is None else {"c2pa_certificate": signer.certificate_digest}


def _algorithm(secret: bytes, path: Path) -> str:
    """C2PA's name of the algorithm that a private key signs with."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(secret, None)
    except (ValueError, TypeError) as error:
        raise HoiError(f"{path} is no private key in PEM without a password", str(error)) from error
    match key:
        case ec.EllipticCurvePrivateKey():
            return {256: "es256", 384: "es384", 521: "es512"}[key.curve.key_size]
        case rsa.RSAPrivateKey():
            return "ps256"
        case ed25519.Ed25519PrivateKey():
            return "ed25519"
    raise HoiError(f"{path} holds a key of no known kind", "use an EC, RSA or Ed25519 key")
