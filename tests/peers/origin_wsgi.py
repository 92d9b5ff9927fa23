"""An origin for gunicorn: /length/N and /chunked/N give N octets; an upload is answered with its
SHA-256. The octets are those of the file in HOLDFAST_PIECE, over and over."""
import hashlib
import os

with open(os.environ["HOLDFAST_PIECE"], "rb") as file:
    PIECE = file.read()


def body(left):
    while left > 0:
        some = PIECE[:left]
        left -= len(some)
        yield some


def app(environ, start_response):
    if environ["REQUEST_METHOD"] in ("PUT", "POST"):
        digest = hashlib.sha256()
        while some := environ["wsgi.input"].read(65536):
            digest.update(some)
        text = digest.hexdigest().encode()
        start_response("200 OK", [("Content-Length", str(len(text)))])
        return [text]
    _, framing, size = environ["PATH_INFO"].split("/")
    fields = [("Content-Type", "application/octet-stream")]
    if framing == "length":
        fields.append(("Content-Length", size))
    start_response("200 OK", fields)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else body(int(size))
