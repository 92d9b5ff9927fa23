"""An origin for gunicorn (`echo:wsgi`), uvicorn (`echo:asgi`) and aiohttp (run as a program, with the port)
for tests/torture/differential: answers with what it understood of the request, and writes to the file
ECHO_LOG when one begins and when it was read whole."""
import asyncio
import hashlib
import os
import sys

LOG = os.open(os.environ["ECHO_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(event, nonce):
    os.write(LOG, f"{event} {nonce or '-'}\n".encode())


def text(nonce, method, target, body, a):
    told = f"nonce={nonce} method={method} target={target} length={len(body)} digest={hashlib.sha1(body).hexdigest()} a={a}\n"
    return told.encode("utf-8", "backslashreplace")


def wsgi(environ, start_response):
    nonce = environ.get("HTTP_X_NONCE")
    note("begun", nonce)
    body = environ["wsgi.input"].read()
    length = environ.get("CONTENT_LENGTH")
    if length and len(body) < int(length):  # gunicorn gives what came; only the length tells that it was cut
        raise ConnectionError("a body was cut")
    note("whole", nonce)
    told = text(nonce, environ["REQUEST_METHOD"], environ["RAW_URI"], body, environ.get("HTTP_X_A"))
    start_response("200 OK", [("Content-Length", str(len(told))), ("X-Echo", nonce or "-")])
    # gunicorn sends whatever it is given, with HEAD too.
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [told]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    fields = {}
    for name, value in scope["headers"]:
        fields.setdefault(name, []).append(value.decode("latin-1"))
    nonce = ",".join(fields.get(b"x-nonce", ["-"]))
    note("begun", nonce)
    body, more = b"", True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        body += event.get("body", b"")
        more = event.get("more_body", False)
    note("whole", nonce)
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    told = text(nonce, scope["method"], target.decode("latin-1"), body, ",".join(fields.get(b"x-a", [])))
    await send({"type": "http.response.start", "status": 200, "headers": [
        (b"content-length", str(len(told)).encode()), (b"x-echo", nonce.encode("latin-1"))]})
    await send({"type": "http.response.body", "body": told})


async def aiohttp_origin(port):
    from aiohttp import web

    async def echo(request):
        nonce = request.headers.get("X-Nonce")
        note("begun", nonce)
        body = await request.read()
        note("whole", nonce)
        told = text(nonce, request.method, request.raw_path, body, ",".join(request.headers.getall("X-A", [])))
        return web.Response(body=told, headers={"X-Echo": nonce or "-"})

    # The low-level server: no router to have an opinion on `*` and `//`.
    runner = web.ServerRunner(web.Server(echo, keepalive_timeout=75))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(aiohttp_origin(int(sys.argv[1])))
