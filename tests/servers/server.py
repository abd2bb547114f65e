"""Python servers for the opinion tier: server.py PORT KIND, KIND one of threads, wsgi, asyncio.

The targets are those of tests/servers/README.md; the asyncio server writes its answers byte by byte as given in ODD.
"""

import asyncio
import http.server
import sys
import wsgiref.simple_server

PORT, KIND = int(sys.argv[1]), sys.argv[2]


def text(size):
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


class Threads(http.server.BaseHTTPRequestHandler):
    """HTTP/1.1 with keep-alive from the standard library."""

    protocol_version = "HTTP/1.1"

    def reply(self, status, body, *headers, length=True):
        self.send_response(status)
        if length:
            self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        what, first, second = (self.path.strip("/").split("/") + ["0", "0"])[:3]
        if what == "size":
            self.reply(200, text(int(first)))
        elif what == "chunked":
            self.reply(200, b"", ("Transfer-Encoding", "chunked"), length=False)
            for _ in range(int(first)):
                self.wfile.write(b"%x\r\n%s\r\n" % (int(second), text(int(second))))
            self.wfile.write(b"0\r\n\r\n")
        elif what == "close":
            self.reply(200, text(int(first)), ("Connection", "close"), length=False)
        elif what == "status":
            self.reply(int(first), b"")
        elif what == "echo":
            self.reply(200, body)
        else:
            self.send_error(404)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = answer

    def log_message(self, *_):
        pass


def wsgi(environ, start_response):
    """wsgiref speaks HTTP/1.0: the connection's end is the body's end if no length is given."""
    what, first, second = (environ["PATH_INFO"].strip("/").split("/") + ["0", "0"])[:3]
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    if what == "size":
        start_response("200 OK", [("Content-Length", first)])
        return [text(int(first))]
    if what == "close":
        start_response("200 Fine and Dandy", [])
        return [text(int(second)) for _ in range(int(first))]
    if what == "echo":
        start_response("201 Created", [])
        return [body, b"!"]
    start_response("404 Not Found", [])
    return []


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass


# Answers as raw pieces; each piece is a write of its own.
ODD = {
    "/fold": [b"HTTP/1.1 200 OK\r\nX-Fold: one\r\n two\r\n\tthree\r\nContent-", b"Length: 4\r\n\r\nfold"],
    "/noreason": [b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n", b"ok"],
    "/extension": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"5;a=b;c=\"d e\"\r\nhello\r", b"\n0",
                   b"\r\n\r\n"],
    "/trailer": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-A: 1\r\n", b"X-B: 2\r\n\r\n"],
    "/zeros": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0000004\r\nabcd\r\n000\r\n\r\n"],
    "/hex": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"],
    "/hints": [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n",
               b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
    "/lower": [b"HTTP/1.1 200 OK\r\ncontent-LENGTH:3   \r\n\r\nlow"],
    "/both": [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nbothof\r\n0\r\n\r\n"],
    "/twice": [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\ntwice"],
    "/reset": [b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"],
    "/teapot": [b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 6\r\n\r\nteapot"],
    "/unusual": [b"HTTP/1.1 799 Whatever\r\nContent-Length: 1\r\n\r\n!"],
    "/dribble": [bytes([b]) for b in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbytes"],
}


async def odd(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\n")
            while not head.endswith((b"\r\n\r\n", b"\n\n")):
                head += await reader.readuntil(b"\n")
            target = head.split(b" ")[1].decode()
            for piece in ODD.get(target, [b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"]):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve_odd():
    server = await asyncio.start_server(odd, "127.0.0.1", PORT)
    await server.serve_forever()


if KIND == "threads":
    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Threads).serve_forever()
elif KIND == "wsgi":
    with wsgiref.simple_server.make_server("127.0.0.1", PORT, wsgi, handler_class=Quiet) as server:
        server.serve_forever()
else:
    asyncio.run(serve_odd())
