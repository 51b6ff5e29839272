import datetime
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from deepfake_detectors.examination.examine import examine
from deepfake_detectors.examination.judging import Judge
from deepfake_detectors.examination.provenance import read_provenance
from support.pictures import random_pictures

AI = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
CAMERA = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"


@pytest.fixture(scope="module")
def signer() -> Any:
    """A signer whose certificate was issued by an authority that nobody trusts."""
    c2pa = pytest.importorskip("c2pa")
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def named(organisation: str) -> x509.Name:
        return x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
                x509.NameAttribute(NameOID.COMMON_NAME, f"{organisation} <signing>"),
            ]
        )

    now = datetime.datetime.now(datetime.UTC)
    root_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def certificate(subject: x509.Name, public: Any, authority: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(named("Authority of a test"))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        )
        if not authority:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False
            )
        return builder.sign(root_key, hashes.SHA256())

    chain = [
        certificate(named("Newsroom of a test"), key.public_key(), False),
        certificate(named("Authority of a test"), root_key.public_key(), True),
    ]
    pem = serialization.Encoding.PEM
    return lambda: c2pa.Signer.from_info(
        c2pa.C2paSignerInfo(
            b"es256",
            b"".join(item.public_bytes(pem) for item in chain),
            key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
            None,
        )
    )


def signed(source: Path, target: Path, signer: Any, source_type: str) -> Path:
    import c2pa

    manifest = {
        "claim_generator_info": [{"name": "test", "version": "1"}],
        "title": "A <picture>",
        "assertions": [
            {
                "label": "c2pa.actions",
                "data": {"actions": [{"action": "c2pa.created", "digitalSourceType": source_type}]},
            }
        ],
    }
    with c2pa.Builder(json.dumps(manifest)) as builder, signer() as own:
        builder.sign_file(str(source), str(target), own)
    return target


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    random_pictures(1)[0].save(tmp_path / "photo.jpg", quality=95)
    return tmp_path / "photo.jpg"


@pytest.mark.parametrize(("source_type", "ai"), [(AI, True), (CAMERA, None)])
def test_signed_file(photo: Path, tmp_path: Path, signer: Any, source_type: str, ai: bool | None) -> None:
    found = read_provenance(signed(photo, tmp_path / "signed.jpg", signer, source_type))["c2pa"]
    assert found["status"] == "present"
    assert found["ai_generated"] is ai
    assert found["issuer"] == "Newsroom of a test"
    assert found["validation_state"] == "Valid"
    assert "signingCredential.untrusted" in found["validation_codes"]
    assert found["source_types"] == [source_type.rsplit("/", 1)[-1]]
    assert found["actions"] == ["c2pa.created"]


def test_tampered_file_is_invalid(photo: Path, tmp_path: Path, signer: Any) -> None:
    path = signed(photo, tmp_path / "signed.jpg", signer, CAMERA)
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)
    assert read_provenance(path)["c2pa"]["validation_state"] == "Invalid"


def test_file_without_manifest(photo: Path) -> None:
    pytest.importorskip("c2pa")
    assert read_provenance(photo)["c2pa"]["status"] == "absent"


def test_without_the_extra(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    found = read_provenance(photo)["c2pa"]
    assert found["status"] == "not read" and "[provenance]" in found["detail"]


def test_camera_fields_and_generator_texts(tmp_path: Path) -> None:
    image = random_pictures(1)[0]
    exif = Image.Exif()
    exif[271], exif[272] = "Leica", "M11 <b>"
    image.save(tmp_path / "camera.jpg", exif=exif)
    found = read_provenance(tmp_path / "camera.jpg")
    assert (found["camera"], found["remarks"]) == ({"Make": "Leica", "Model": "M11 <b>"}, [])
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", "a cat\nSteps: 20, Sampler: Euler a")
    chunks.add_text("Description", "made with Midjourney")
    image.save(tmp_path / "generated.png", pnginfo=chunks)
    remarks = read_provenance(tmp_path / "generated.png")["remarks"]
    assert len(remarks) == 2
    assert "Sampler: Euler a" in remarks[0] and "midjourney" in remarks[1]


def test_provenance_never_changes_the_score(photo: Path, tmp_path: Path, signer: Any) -> None:
    from support.tiny_models import tiny_fakevlm

    judge = Judge(str(tiny_fakevlm(tmp_path / "model")))
    marked = signed(photo, tmp_path / "signed.jpg", signer, AI)
    plain, claimed = (examine(path, judge, checks=False) for path in (photo, marked))
    assert claimed.record["provenance"]["c2pa"]["ai_generated"] is True
    assert claimed.record["readings"] == plain.record["readings"]
    assert claimed.decision == plain.decision
