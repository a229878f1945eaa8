"""TLS files that change are read again."""

import asyncio
import datetime
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from lora_compose.server.http.tls import refresh
from lora_compose.server.options.http_options import HttpOptions


def write_pair(certificate: Path, key: Path, serial: int) -> None:
    """A certificate for localhost that is signed by its own key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509
        .CertificateBuilder(name, name, private.public_key(), serial)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(private, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, *form))
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))


async def serial_served(port: int) -> int:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    served: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(served).serial_number


async def serials(options: HttpOptions, context: ssl.SSLContext) -> list[int]:
    """The serial numbers served at first, after half a change, and after the whole change."""
    assert options.ssl_certfile is not None
    assert options.ssl_keyfile is not None
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    refreshing = asyncio.create_task(refresh(context, options, 0.01))
    found = [await serial_served(port)]
    old_key = options.ssl_keyfile.read_bytes()
    write_pair(options.ssl_certfile, options.ssl_keyfile, 2)
    new_key = options.ssl_keyfile.read_bytes()
    options.ssl_keyfile.write_bytes(old_key)
    await asyncio.sleep(0.2)
    found.append(await serial_served(port))
    options.ssl_keyfile.write_bytes(new_key)
    await asyncio.sleep(0.2)
    found.append(await serial_served(port))
    refreshing.cancel()
    server.close()
    return found


def test_a_changed_pair_is_served_and_half_a_change_is_not(tmp_path: Path) -> None:
    options = HttpOptions(
        ssl_certfile=tmp_path / "c.pem", ssl_keyfile=tmp_path / "k.pem", enable_ssl_refresh=True
    )
    write_pair(tmp_path / "c.pem", tmp_path / "k.pem", 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    first, half, whole = asyncio.run(serials(options, context))
    assert (first, whole) == (1, 2)
    assert half == 1
