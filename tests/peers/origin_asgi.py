"""An origin for uvicorn: /length/N and /chunked/N give N octets; an upload is answered with its
SHA-256. The octets are those of the file in HOLDFAST_PIECE, over and over."""
import hashlib
import os

with open(os.environ["HOLDFAST_PIECE"], "rb") as file:
    PIECE = file.read()


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["method"] in ("PUT", "POST"):
        digest = hashlib.sha256()
        more = True
        while more:
            event = await receive()
            digest.update(event.get("body", b""))
            more = event.get("more_body", False)
        text = digest.hexdigest().encode()
        fields = [(b"content-length", str(len(text)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": text})
        return
    _, framing, size = scope["path"].split("/")
    fields = [(b"content-length", size.encode())] if framing == "length" else []
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    left = 0 if scope["method"] == "HEAD" else int(size)
    while left > 0:
        some = PIECE[:left]
        left -= len(some)
        await send({"type": "http.response.body", "body": some, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
