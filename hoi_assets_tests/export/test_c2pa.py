"""Promises of C2PA manifests, read back by the library's own reader."""

import datetime
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.export.c2pa import Signer
from hoi_assets.picture_marks import TRAINED, encode_marked, read_mark

c2pa = pytest.importorskip("c2pa", reason="the extra c2pa is not installed")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for document signing with the authority that vouches for it, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]

    def name(text: str) -> x509.Name:
        parts = [(NameOID.ORGANIZATION_NAME, "Example"), (NameOID.COMMON_NAME, text)]
        return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])

    def certificate(text: str, own: int, authority: bool) -> x509.Certificate:
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
                "crl_sign",
            ),
            False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(name(text))
            .issuer_name(name("authority"))
            .public_key(keys[own].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, **usage),
                critical=True,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(keys[own].public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()),
                critical=False,
            )
        )
        if not authority:
            eku = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(eku, critical=False)
        return builder.sign(keys[0], hashes.SHA256())

    folder = tmp_path_factory.mktemp("pem")
    chain = [certificate("signer", 1, False), certificate("authority", 0, True)]
    encoding = serialization.Encoding.PEM
    (folder / "chain.pem").write_bytes(b"".join(one.public_bytes(encoding) for one in chain))
    (folder / "key.pem").write_bytes(
        keys[1].private_bytes(
            encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "chain.pem", folder / "key.pem"


def test_signed_picture_says_that_a_trained_model_drew_it(pem: tuple[Path, Path]) -> None:
    plain = encode_marked(Image.new("RGB", (32, 32), "red"))
    signed = Signer(*pem)(plain)
    manifest = json.loads(c2pa.Reader("image/png", io.BytesIO(signed)).json())
    active = manifest["manifests"][manifest["active_manifest"]]
    actions = [
        action
        for assertion in active["assertions"]
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"]["actions"]
    ]
    assert [one["digitalSourceType"] for one in actions] == [TRAINED]
    failures = [
        one["code"]
        for one in manifest.get("validation_results", {})
        .get("activeManifest", {})
        .get("failure", [])
    ]
    # Nobody knows this authority; everything else holds.
    assert set(failures) <= {"signingCredential.untrusted"}
    assert read_mark(signed) == TRAINED
    assert Image.open(io.BytesIO(signed)).tobytes() == Image.open(io.BytesIO(plain)).tobytes()


def test_picture_changed_after_signing_is_found(pem: tuple[Path, Path]) -> None:
    signed = bytearray(Signer(*pem)(encode_marked(Image.new("RGB", (32, 32), "red"))))
    place = signed.index(b"IDAT") + 8
    signed[place] ^= 1
    manifest = json.loads(c2pa.Reader("image/png", io.BytesIO(bytes(signed))).json())
    assert manifest["validation_state"] == "Invalid"


def test_what_cannot_sign_is_named(pem: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(HoiError, match="cannot be read"):
        Signer(tmp_path / "none.pem", pem[1])
    with pytest.raises(HoiError, match="no private key"):
        Signer(pem[0], pem[0])
