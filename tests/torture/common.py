"""What the scripts about change share: an origin, a load, three proxies, and how they are told to change.

Loopback only. The load is Python's asyncio, so that every failed request is seen with its cause; half of its
clients open a connection for each request, the other half keep theirs. A kept connection that the proxy closes
between two requests is opened anew and the request sent once more, as RFC 9112 §9.3.1 lets a client do with a GET;
such repeats are counted apart, and are no failures.
"""
import asyncio, os, re, resource, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request

BODY = b"x" * 128
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSING = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class OriginSide(asyncio.Protocol):
    """Answers each head with a small 200, after `delay` seconds if that is not 0."""
    delay = 0.0

    def connection_made(self, transport):
        self.transport, self.read = transport, b""

    def data_received(self, octets):
        self.read += octets
        while (end := self.read.find(b"\r\n\r\n")) >= 0:
            self.read = self.read[end + 4:]
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self.answer)
            else:
                self.answer()

    def answer(self):
        if not self.transport.is_closing():
            self.transport.write(ANSWER)


async def origin(delay=0.0):
    loop = asyncio.get_running_loop()
    side = type("Side", (OriginSide,), {"delay": delay})
    return (await loop.create_server(side, "127.0.0.1", 0, backlog=4096)).sockets[0].getsockname()[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Load:
    """Requests without a pause until it is stopped."""

    def __init__(self, port, clients=32):
        self.port, self.clients, self.going = port, clients, True
        self.whole = self.repeated = 0
        self.failed = {}

    def fail(self, cause):
        self.failed[cause] = self.failed.get(cause, 0) + 1

    async def run(self):
        await asyncio.gather(*(self.short() if nth % 2 else self.kept() for nth in range(self.clients)))

    async def ask(self, request, connection=None):
        """One exchange: (connection, closes). A failure is an exception with its cause."""
        reader, writer = connection or await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError("status " + head[9:12].decode())
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        await asyncio.wait_for(reader.readexactly(length), 10)
        self.whole += 1
        return (reader, writer), re.search(rb"(?i)\r\nconnection: *close", head) is not None

    async def short(self):
        while self.going:
            try:
                (_, writer), _ = await self.ask(CLOSING)
                writer.close()
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                self.fail(f"short: {type(error).__name__} {error if isinstance(error, ConnectionError) else ''}".strip())
                await asyncio.sleep(0.01)

    async def kept(self):
        connection = None
        while self.going:
            used = connection is not None
            try:
                connection, closes = await self.ask(REQUEST, connection)
                if closes:
                    connection[1].close()
                    connection = None
            except (OSError, EOFError, asyncio.TimeoutError) as error:
                stale = used and (isinstance(error, ConnectionResetError) or
                                  isinstance(error, asyncio.IncompleteReadError) and not error.partial)
                if stale:
                    self.repeated += 1
                else:
                    self.fail(f"kept: {type(error).__name__} {error if isinstance(error, ConnectionError) else ''}".strip())
                    await asyncio.sleep(0.01)
                connection = None
        if connection:
            connection[1].close()


class Program:
    """A proxy in a folder of its own, ended by its own number."""
    before = []  # what the command is started by: `sh -c …`, to put it into a memory group

    def __init__(self, name, folder, command, config, port, admin=None):
        self.name, self.folder, self.port, self.admin, self.config = name, folder, port, admin, config
        self.errors = open(os.path.join(folder, name + ".log"), "wb")
        self.process = subprocess.Popen([*self.before, *command], stdout=subprocess.DEVNULL, stderr=self.errors)

    async def serves(self):
        for _ in range(500):
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.02)
        raise SystemExit(f"{self.name} does not serve; see {self.errors.name}")

    def metrics(self):
        text = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"http://127.0.0.1:{self.admin}/metrics", timeout=5).read().decode()
        return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.M)}

    def resident(self, pid=None):
        """KiB, of the process and its children."""
        pids = [pid or self.process.pid]
        for pid in pids:
            try:
                pids += [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]
            except OSError:
                pass
        total = 0
        for pid in pids:
            try:
                total += int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])
            except (OSError, TypeError):
                pass
        return total


def holdfast(binary, folder, origins, extra=""):
    port, admin, path = free_port(), free_port(), os.path.join(folder, "holdfast.toml")
    config = lambda text="": f"""drain.delay = "0s"\ndrain.idle_grace = "1s"\ndrain.spread = "0s"\n[admin]\nbind = "127.0.0.1:{admin}"
[server]\nwatch_config = false\n[log]\naccess = "off"\n[listeners.web]\nbind = "127.0.0.1:{port}"\n{text or extra}
[upstreams.app]\nservers = {[f"127.0.0.1:{at}" for at in origins]}\n"""
    open(path, "w").write(config())
    program = Program("holdfast", folder, [binary, "--config", path], path, port, admin)
    program.text = config
    return program


def nginx(folder, origins, workers=2, daemon="off"):
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    if not os.access(program, os.X_OK):
        return None
    port, path = free_port(), os.path.join(folder, "nginx.conf")
    text = lambda timeout=75: f"""worker_processes {workers}; pid {folder}/nginx.pid; error_log {folder}/nginx.err; daemon {daemon};
worker_shutdown_timeout 20s; events {{ worker_connections 4096; }}
http {{ access_log off; upstream app {{ {" ".join(f"server 127.0.0.1:{at};" for at in origins)} keepalive 64; }}
 server {{ listen 127.0.0.1:{port} backlog=1024; keepalive_requests 1000000; keepalive_timeout {timeout}s;
 location / {{ proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}"""
    open(path, "w").write(text())
    made = Program("nginx", folder, [program, "-c", path, "-p", folder], path, port)
    made.text = text
    return made


def haproxy(folder, origins):
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    if not os.access(program, os.X_OK):
        return None
    port, path = free_port(), os.path.join(folder, "haproxy.cfg")
    text = lambda timeout=75: f"""global\n  nbthread 2\n  maxconn 4096\n  hard-stop-after 20s\n  stats socket {folder}/ha.sock expose-fd listeners
defaults\n  mode http\n  timeout connect 3s\n  timeout client {timeout}s\n  timeout server 60s
frontend web\n  bind 127.0.0.1:{port} backlog 1024\n  default_backend app
backend app\n""" + "".join(f"  server s{at} 127.0.0.1:{at}\n" for at in origins)
    open(path, "w").write(text())
    made = Program("haproxy", folder, [program, "-W", "-db", "-f", path], path, port)
    made.text = text
    return made


def table(rows):
    widths = [max(len(str(row[at])) for row in rows) for at in range(len(rows[0]))]
    for row in rows:
        print("  ".join(str(cell).ljust(width) for cell, width in zip(row, widths)).rstrip())


def end(program):
    if program and program.process.poll() is None:
        program.process.terminate()
        try:
            program.process.wait(40)
        except subprocess.TimeoutExpired:
            program.process.kill()
            program.process.wait()


def folder():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    return tempfile.mkdtemp(prefix="holdfast-torture-")


def judges(main):
    """Runs `main` with a folder that is removed afterwards; whether it passed is the script's end."""
    own = folder()
    try:
        passed = asyncio.run(main(own))
        print("passed" if passed else "failed")
    finally:
        shutil.rmtree(own)
    sys.exit(0 if passed else 1)


def slow_client(source, port, room, begins):
    """A connection from this address that takes so little at a time; it has begun and does not block."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    sock.send(begins)
    sock.setblocking(False)
    return sock
