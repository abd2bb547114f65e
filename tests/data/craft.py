#!/usr/bin/env python3
"""Writes the crafted-*.pcap* captures of this directory, byte by byte and always the same: craft.py [DIRECTORY].

Each connection is one oddity; its first request's target names it. Knows no decoder.
"""

import struct
import sys
from pathlib import Path

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ETHERNET, RAW, NULL, LOOP, SLL, SLL2 = 1, 101, 0, 108, 113, 276
MAC = bytes.fromhex("020000000001020000000002")


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def address(text):
    if ":" in text:
        left, _, right = text.partition("::")
        groups = [[int(g, 16) for g in part.split(":") if g] for part in (left, right)]
        return struct.pack(">8H", *groups[0], *[0] * (8 - len(groups[0]) - len(groups[1])), *groups[1])
    return bytes(map(int, text.split(".")))


def ipv4(source, destination, protocol, payload, ttl=64, fragment=0, ident=0, options=b""):
    head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), ident, fragment,
                       ttl, protocol, 0) + address(source) + address(destination) + options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def ipv6(source, destination, protocol, payload):
    return struct.pack(">IHBB", 6 << 28, len(payload), protocol, 64) + address(source) + address(destination) + payload


def ip(source, destination, protocol, payload, **more):
    return (ipv6 if ":" in source else ipv4)(source, destination, protocol, payload, **more)


def udp(source, destination, payload):
    return struct.pack(">HHHH", source, destination, 8 + len(payload), 0) + payload


class Connection:
    """A TCP connection that is written segment by segment."""

    number = 0

    def __init__(self, client="10.0.0.1", server="10.0.0.2", port=80, client_isn=1000, server_isn=5000, open=True,
                 source_port=None):
        Connection.number += 1
        self.ends = {"c": (client, source_port or 20000 + Connection.number), "s": (server, port)}
        self.next = {"c": client_isn, "s": server_isn}
        self.packets = []
        if open:
            self.put("c", SYN, advance=1)
            self.put("s", SYN | ACK, advance=1)
            self.put("c", ACK)

    def segment(self, side, flags, data=b"", seq=None, ack=None, ttl=64, spoil=False, options=b""):
        other = "s" if side == "c" else "c"
        (source, sport), (destination, dport) = self.ends[side], self.ends[other]
        seq = self.next[side] if seq is None else seq
        ack = (self.next[other] if ack is None else ack) if flags & ACK else 0
        head = struct.pack(">HHIIBBHHH", sport, dport, seq % 2**32, ack % 2**32, (5 + len(options) // 4) << 4, flags,
                           60000, 0, 0) + options
        pseudo = address(source) + address(destination) + struct.pack(">II", len(head) + len(data), 6)
        check = checksum(pseudo + head + data) ^ (0x5555 if spoil else 0)
        packet = head[:16] + struct.pack(">H", check) + head[18:] + data
        return ip(source, destination, 6, packet, **({} if ":" in source else {"ttl": ttl}))

    def put(self, side, flags, data=b"", advance=None, **more):
        self.packets.append(self.segment(side, flags, data, **more))
        self.next[side] += len(data) if advance is None else advance

    def c(self, data, **more):
        self.put("c", PSH | ACK, data, **more)
        return self

    def s(self, data, **more):
        self.put("s", PSH | ACK, data, **more)
        return self

    def lose(self, side, length):
        """Bytes that were sent and acknowledged but not captured."""
        self.next[side] += length
        return self

    def close(self):
        self.put("s", FIN | ACK, advance=1)
        self.put("c", FIN | ACK, advance=1)
        self.put("s", ACK)
        return self

    def reset(self, side="s"):
        self.put(side, RST | ACK)
        return self


def get(target, version="1.1", *headers):
    return f"GET {target} HTTP/{version}\r\nHost: a.test\r\n{''.join(h + chr(13) + chr(10) for h in headers)}\r\n".encode()


def ok(body=b"ok", *headers, status="200 OK"):
    lines = "".join(h + "\r\n" for h in headers)
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def chunked(*chunks, end=b"0\r\n\r\n", head=b"Transfer-Encoding: chunked\r\n"):
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body + end


def exchange(request, response, **more):
    return Connection(**more).c(request).s(response).close()


def framing():
    """Heads and bodies: what is odd is in the bytes, not in the segments."""
    a, r = exchange, lambda head, body=b"": b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body
    yield a(get("/plain"), ok())
    yield a(get("/no-reason"), b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok")
    yield a(get("/empty-reason"), b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok")
    yield a(get("/reason-latin1"), b"HTTP/1.1 200 \xe4\xf6\xfc\r\nContent-Length: 2\r\n\r\nok")
    yield a(b"GET /bare-lf HTTP/1.1\nHost: a\n\n", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok")
    yield a(b"\r\n\r\nGET /leading-crlf HTTP/1.1\r\nHost: a\r\n\r\n", ok())
    yield a(b"GET /no-headers HTTP/1.0\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\nuntil the end")
    yield a(get("/keep-alive-10", "1.0", "Connection: keep-alive") + get("/second-10", "1.0"),
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na" + b"HTTP/1.0 200 OK\r\n\r\nbc")
    yield a(b"HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n", ok()[:-2])
    yield (Connection().c(b"HEAD /head-first HTTP/1.1\r\nHost: a\r\n\r\n").s(ok(b"x" * 50)[:-50]).c(get("/after-head"))
           .s(ok()).close())
    yield (Connection().c(get("/304-first")).s(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")
           .c(get("/after-304")).s(ok()).close())
    yield (Connection().c(get("/204-first")).s(b"HTTP/1.1 204 No Content\r\n\r\n").c(get("/after-204")).s(ok()).close())
    yield (Connection().c(b"POST /continue HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
           .s(b"HTTP/1.1 100 Continue\r\n\r\n").c(b"hello").s(ok()).c(get("/after-continue")).s(ok()).close())
    yield (Connection().c(get("/hints")).s(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").s(ok()).close())
    yield (Connection().c(get("/processing")).s(b"HTTP/1.1 102 Processing\r\n\r\n").s(ok(b"done")).close())
    yield a(get("/chunked"), chunked(b"hello", b"x" * 300))
    yield a(get("/chunk-extension"), r(b"Transfer-Encoding: chunked\r\n", b"5;a=1;b=\"2\"\r\nhello\r\n0;last\r\n\r\n"))
    yield a(get("/chunk-upper"), r(b"Transfer-Encoding: Chunked\r\n", b"0A\r\n0123456789\r\n00\r\n\r\n"))
    yield a(get("/chunk-trailers"), chunked(b"hello", end=b"0\r\nX-A: 1\r\nX-B: 2\r\n\r\n"))
    yield a(get("/gzip-chunked"), chunked(b"hello", head=b"Transfer-Encoding: gzip, chunked\r\n"))
    yield a(get("/te-and-cl"), chunked(b"hello", head=b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"))
    yield a(get("/cl-and-te"), chunked(b"hello", head=b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"))
    yield a(get("/cl-twice"), r(b"Content-Length: 2\r\nContent-Length: 2\r\n", b"ok"))
    yield a(get("/cl-list"), r(b"Content-Length: 2, 2\r\n", b"ok"))
    yield a(get("/cl-spaces"), r(b"Content-Length:   2  \r\n", b"ok"))
    yield a(get("/cl-zeros"), r(b"Content-Length: 0002\r\n", b"ok"))
    yield a(get("/cl-lower"), r(b"content-length:2\r\n", b"ok"))
    yield a(get("/cl-more-than-sent"), r(b"Content-Length: 10\r\n", b"ok"))
    yield a(get("/fold"), r(b"X-Fold: a\r\n b\r\n\tc\r\nContent-Length: 2\r\n", b"ok"))
    yield a(get("/space-before-colon"), r(b"X-Space : a\r\nContent-Length: 2\r\n", b"ok"))
    yield a(get("/empty-value"), r(b"X-Empty:\r\nContent-Length: 2\r\n", b"ok"))
    yield a(get("/binary-value"), r(b"X-Bytes: \x80\xff\x01\r\nContent-Length: 2\r\n", b"ok"))
    yield a(get("/many-headers"), r(b"".join(b"X-%d: y\r\n" % i for i in range(300)) + b"Content-Length: 2\r\n", b"ok"))
    yield a(get("/long-header"), r(b"X-Long: " + b"l" * 30000 + b"\r\nContent-Length: 2\r\n", b"ok"))
    yield a(get("/" + "long" * 3000), ok())
    yield a(get("http://proxy.test/absolute"), ok())
    yield a(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", ok(b""))
    yield a(b"GET /a%20b?c=%00&d=[1]{2}|\\^`\" HTTP/1.1\r\nHost: a\r\n\r\n", ok())
    yield a(b"GET /latin\xe4 HTTP/1.1\r\nHost: a\r\n\r\n", ok())
    yield a(b"GET /two-hosts HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", ok())
    yield a(b"GET /no-host HTTP/1.1\r\n\r\n", ok(b"bad", status="400 Bad Request"))
    yield a(b"PROPFIND /dav HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n<a/>", ok(b"", status="207 Multi-Status"))
    yield a(b"PURGE /cache HTTP/1.1\r\nHost: a\r\n\r\n", ok())
    yield a(b"get /lower-method HTTP/1.1\r\nHost: a\r\n\r\n", ok(b"no", status="501 Not Implemented"))
    yield a(b"QUERY /unknown-method HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nsql", ok())
    yield a(b"GET  /two-spaces HTTP/1.1\r\nHost: a\r\n\r\n", ok())
    yield a(b"GET\t/tab HTTP/1.1\r\nHost: a\r\n\r\n", ok())
    yield a(b"GET /version-12 HTTP/1.2\r\nHost: a\r\n\r\n", ok())
    yield a(b"GET /http09\r\n", b"<html>nine</html>")
    yield a(get("/pipe-1") + get("/pipe-2") + get("/pipe-3"), ok(b"1") + ok(b"22", status="404 Not Found") + ok(b"333"))
    yield a(get("/pipe-post") + b"POST /pipe-body HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\nGET /no HTTP/1.1\r\n\r\n"
            + get("/pipe-last"), ok(b"1") + ok(b"2") + ok(b"3"))
    yield a(get("/pipe-error") + get("/pipe-unanswered"),
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbad")
    yield a(b"HEAD /pipe-head HTTP/1.1\r\nHost: a\r\n\r\n" + get("/pipe-after-head"), ok(b"xyz")[:-3] + ok(b"abcd"))
    yield a(get("/status-418"), ok(b"tea", status="418 I'm a teapot"))
    yield a(get("/status-999"), ok(b"!", status="999 Out of range"))
    yield a(get("/range"), ok(b"0123", "Content-Range: bytes 0-3/10", status="206 Partial Content"))
    yield a(get("/until-close"), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"z" * 3000)
    yield a(get("/until-close-empty"), b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    yield (Connection().c(get("/upgrade", "1.1", "Connection: Upgrade", "Upgrade: websocket"))
           .s(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x02hi")
           .c(b"\x81\x82\0\0\0\0GE").close())
    yield (Connection().c(b"CONNECT b.test:7777 HTTP/1.1\r\nHost: b.test:7777\r\n\r\n")
           .s(b"HTTP/1.1 200 Connection established\r\n\r\n").c(b"\x00\x01binary").s(b"\x02\x03answer").close())
    yield (Connection().c(b"CONNECT b.test:7777 HTTP/1.1\r\nHost: b.test:7777\r\n\r\n")
           .s(ok(b"no", status="407 Proxy Authentication Required")).c(get("/after-refused-connect")).s(ok()).close())
    yield Connection().s(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").close()
    yield Connection().c(get("/no-answer")).close()
    yield Connection().c(get("/reset-before-answer")).reset()
    yield Connection().c(get("/reset-in-body")).s(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").reset()
    yield Connection().c(b"POST /upload-cut HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart").reset("c")
    yield Connection().c(get("/never-closed")).s(ok())
    yield (Connection().c(b"POST /early-answer HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf")
           .s(ok(b"too big", status="413 Content Too Large")).c(b"rest").c(get("/after-early")).s(ok()).close())
    yield a(b"POST /chunked-up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            + get("/after-chunked-up"), ok() + ok())
    yield a(get("/nul-in-body"), ok(b"\0\r\n\r\nHTTP/1.1 500 No\r\n\r\n"))


def violations():
    """Bytes that a strict reader refuses; a decoder must still say what it can and never take bodies for heads."""
    a, r = exchange, lambda head, body=b"": b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body
    te = b"Transfer-Encoding: "
    yield a(get("/chunk-size-overflow"), r(te + b"chunked\r\n", b"10000000000000005\r\nhello\r\n0\r\n\r\n"))
    yield a(get("/chunk-size-bad"), r(te + b"chunked\r\n", b"xyz\r\nhello\r\n0\r\n\r\n"))
    yield a(get("/chunk-size-space"), r(te + b"chunked\r\n", b"5 \r\nhello\r\n0 \r\n\r\n"))
    yield a(get("/chunk-bare-lf"), r(te + b"chunked\r\n", b"5\nhello\n0\n\n"))
    yield a(get("/chunk-missing-end"), r(te + b"chunked\r\n", b"5\r\nhello\r\n"))
    yield a(get("/chunk-no-crlf"), r(te + b"chunked\r\n", b"5\r\nhello0\r\n\r\n"))
    yield a(get("/te-folded"), r(b"Transfer-Encoding:\r\n chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"))
    yield a(get("/te-two-fields"), r(te + b"gzip\r\n" + te + b"chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"))
    yield a(get("/te-chunked-twice"), r(te + b"chunked\r\n" + te + b"chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"))
    yield a(get("/te-not-chunked"), r(te + b"gzip\r\n", b"until the end"))
    yield a(get("/te-not-last"), r(te + b"chunked, gzip\r\n", b"until the end"))
    yield a(get("/te-identity"), r(te + b"identity\r\nContent-Length: 2\r\n", b"ok"))
    yield a(get("/te-10"), b"HTTP/1.0 200 OK\r\n" + te + b"chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    yield a(get("/te-tab"), r(b"Transfer-Encoding:\tchunked\t\r\n", b"5\r\nhello\r\n0\r\n\r\n"))
    yield a(get("/cl-differ"), r(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"ok!"))
    yield a(get("/cl-list-differ"), r(b"Content-Length: 2, 3\r\n", b"ok!"))
    yield a(get("/cl-garbage"), r(b"Content-Length: 2abc\r\n", b"ok"))
    yield a(get("/cl-plus"), r(b"Content-Length: +2\r\n", b"ok"))
    yield a(get("/cl-negative"), r(b"Content-Length: -1\r\n", b"ok"))
    yield a(get("/cl-empty"), r(b"Content-Length:\r\n", b"ok"))
    yield a(get("/cl-greatest"), r(b"Content-Length: 18446744073709551615\r\n", b"ok"))
    yield a(get("/cl-overflow"), r(b"Content-Length: 99999999999999999999999\r\n", b"ok"))
    yield a(get("/more-than-length"), r(b"Content-Length: 2\r\n", b"okEXTRA"))
    yield a(get("/two-answers"), ok(b"1") + ok(b"22"))
    yield a(get("/answer-then-close-then-more"), r(b"Connection: close\r\nContent-Length: 1\r\n", b"1") + ok(b"22"))
    yield a(get("/204-with-body"), b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n")
    yield a(get("/304-chunked"), b"HTTP/1.1 304 Not Modified\r\n" + te + b"chunked\r\n\r\n")
    yield a(b"HEAD /head-chunked HTTP/1.1\r\nHost: a\r\n\r\n", r(te + b"chunked\r\n"))
    yield a(get("/205-with-body"), ok(b"five!", status="205 Reset Content"))
    yield a(get("/100-with-length"), b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n" + ok())
    yield (Connection().c(b"CONNECT c.test:7777 HTTP/1.1\r\nHost: c\r\n\r\n")
           .s(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").s(b"\1\2\3").c(b"\4\5").close())
    yield a(get("/101-unasked"), b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\1\2\3")
    yield a(b"POST /request-te-not-chunked HTTP/1.1\r\nHost: a\r\n" + te + b"gzip\r\n\r\nbody", ok(status="400 Bad Request"))
    yield a(b"POST /request-cl-differ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nbody",
            ok(status="400 Bad Request"))
    yield a(b"POST /request-cl-and-te HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n" + te + b"chunked\r\n\r\n"
            b"0\r\n\r\n" + get("/smuggled"), ok() + ok())
    yield a(b"POST /no-length HTTP/1.1\r\nHost: a\r\n\r\n" + get("/after-no-length"), ok() + ok())
    yield a(b"GET /get-with-body HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody" + get("/after-get-body"), ok() + ok())
    yield a(get("/then-cruft") + b"\x00\x01\x02 cruft \r\n\r\n", ok())
    yield a(get("/then-spare-crlf") + b"\r\n\r\n" + get("/after-spare-crlf"), ok() + b"\r\n" + ok())
    yield a(b"GET HTTP/1.1\r\nHost: a\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /no-version\r\nHost: a\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /space in target HTTP/1.1\r\nHost: a\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /trailing-space HTTP/1.1 \r\nHost: a\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /lower-version http/1.1\r\nHost: a\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /version-20 HTTP/2.0\r\nHost: a\r\n\r\n", ok(status="505 HTTP Version Not Supported"))
    yield a(b"GET /version-09 HTTP/0.9\r\nHost: a\r\n\r\n", ok(status="505 HTTP Version Not Supported"))
    yield a(b"GET /no-colon HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /nul-in-head HTTP/1.1\r\nHost: a\0b\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /bare-cr HTTP/1.1\r\nHost: a\rb\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /space-first HTTP/1.1\r\n Host: a\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /empty-name HTTP/1.1\r\n: a\r\n\r\n", ok(status="400 Bad Request"))
    yield a(b"GET /unfinished-head HTTP/1.1\r\nHost: a\r\n", ok(status="408 Request Timeout"))
    yield a(get("/answer-two-spaces"), b"HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nok")
    yield a(get("/answer-tab"), b"HTTP/1.1\t200\tOK\r\nContent-Length: 2\r\n\r\nok")
    yield a(get("/answer-two-digits"), b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok")
    yield a(get("/answer-four-digits"), b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok")
    yield a(get("/answer-no-colon"), r(b"nocolon\r\nContent-Length: 2\r\n", b"ok"))
    yield a(get("/answer-ssh"), b"SSH-2.0-OpenSSH_9.2\r\n")
    yield a(get("/answer-icy"), b"ICY 200 OK\r\nicy-name: radio\r\n\r\nmusic")
    yield a(get("/answer-rtsp"), b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
    yield a(get("/answer-without-head"), b"just text")
    yield Connection().c(b"\x16\x03\x01\x00\x2a\x01\x00\x00\x26\x03\x03" + bytes(36)).s(b"\x15\x03\x03\x00\x02\x02\x28").close()
    yield Connection().c(b"SSH-2.0-client\r\n").s(b"SSH-2.0-server\r\n").close()
    yield Connection().c(b"PROXY TCP4 192.0.2.7 192.0.2.8 4000 80\r\n" + get("/proxy-v1")).s(ok()).close()
    yield (Connection().c(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\7\xc0\0\2\x08\x0f\xa0\0\x50" + get("/proxy-v2"))
           .s(ok()).close())


def segments():
    """TCP: what is odd is in the segments."""
    for name, size in (("one-byte", 1), ("seven-bytes", 7)):
        connection = Connection()
        for data, side in ((get(f"/{name}"), connection.c), (ok(b"abc"), connection.s)):
            for at in range(0, len(data), size):
                side(data[at:at + size])
        yield connection.close()
    yield Connection(client_isn=2**32 - 20, server_isn=2**32 - 30).c(get("/wrap")).s(ok(b"w" * 100)).close()
    yield Connection(client_isn=2**32 - 1, server_isn=2**32 - 1).c(get("/wrap-at-once")).s(ok()).close()

    def shuffled(name, order, size=30):
        connection = Connection().c(get(name))
        body = ok(b"".join(b"%02d" % i for i in range(60)))
        pieces = [(connection.next["s"] + at, body[at:at + size]) for at in range(0, len(body), size)]
        for index in order(len(pieces)):
            connection.put("s", PSH | ACK, pieces[index][1], seq=pieces[index][0], advance=0)
        return connection.lose("s", len(body)).close()

    yield shuffled("/reversed", lambda n: list(range(n))[::-1])
    yield shuffled("/swapped", lambda n: [i ^ 1 if i ^ 1 < n else i for i in range(n)])
    yield shuffled("/each-twice", lambda n: [i for i in range(n) for _ in "12"])
    yield shuffled("/all-again", lambda n: list(range(n)) * 2)
    connection = Connection().c(get("/overlap-same"))
    body, start = ok(b"0123456789"), connection.next["s"]
    for at, end in ((0, 20), (10, 30), (25, len(body))):
        connection.put("s", PSH | ACK, body[at:end], seq=start + at, advance=0)
    yield connection.lose("s", len(body)).close()
    connection = Connection().c(get("/overlap-longer"))
    body, start = ok(b"0123456789"), connection.next["s"]
    for end in (20, 35, len(body)):
        connection.put("s", PSH | ACK, body[:end], seq=start, advance=0)
    yield connection.lose("s", len(body)).close()
    connection = Connection()
    connection.c(get("/overlap-other-bytes")).c(get("/overlap-EVIL!-bytes"), seq=connection.next["c"] - len(get("/overlap-EVIL!-bytes")), advance=0)
    yield connection.s(ok()).close()
    connection = Connection()
    connection.c(b"GET /keep-alive-probe HTTP/1.1\r\n", ttl=64).put("c", ACK, b"\0", seq=connection.next["c"] - 1, advance=0)
    yield connection.c(b"Host: a\r\n\r\n").s(ok()).close()
    connection = Connection(open=False)
    connection.put("c", SYN, get("/data-in-syn"), advance=1 + len(get("/data-in-syn")), options=bytes([34, 10]) + b"cookie12" + b"\1\1")
    connection.put("s", SYN | ACK, advance=1)
    yield connection.s(ok()).close()
    yield forged(Connection())
    connection = Connection().c(get("/bad-checksum-copy"))
    connection.packets.append(connection.segment("s", PSH | ACK, ok(b"good")))
    connection.packets.append(connection.segment("s", PSH | ACK, ok(b"evil"), spoil=True))
    yield connection.lose("s", len(ok(b"good"))).close()
    yield Connection().c(get("/gap-in-body")).s(ok(b"x" * 100)[:60]).lose("s", 40).s(ok(b"x" * 100)[100:]).c(get("/after-gap")).s(ok()).close()
    yield Connection(open=False).c(get("/no-handshake")).s(ok()).close()
    yield Connection(open=False).s(b"the end of a body").c(get("/joined-in-a-response")).s(ok()).close()
    connection = Connection().c(get("/half-close"))
    connection.put("c", FIN | ACK, advance=1)
    connection.s(ok(b"after the client finished"))
    connection.put("s", FIN | ACK, advance=1)
    yield connection
    connection = Connection()
    connection.put("c", FIN | PSH | ACK, get("/fin-with-data"), advance=1 + len(get("/fin-with-data")))
    connection.put("s", FIN | PSH | ACK, ok(), advance=1 + len(ok()))
    yield connection
    yield Connection(source_port=19999).c(get("/tuple-first")).s(ok(b"1")).close()
    yield Connection(source_port=19999, client_isn=900_000, server_isn=800_000).c(get("/tuple-again")).s(ok(b"22")).close()
    connection = Connection(open=False)
    for _ in range(3):
        connection.put("c", SYN, advance=0)
    connection.next["c"] += 1
    connection.put("s", SYN | ACK, advance=1)
    yield connection.c(get("/syn-again")).s(ok()).close()
    connection = Connection(client="2001:db8::1", server="2001:db8::2")
    yield connection.c(get("/ipv6")).s(ok(b"six")).close()


def forged(connection):
    """A reset outside of the window changes nothing."""
    connection.c(get("/forged-reset"))
    connection.put("s", RST, seq=connection.next["s"] + 500_000, advance=0)
    return connection.s(ok(b"still here")).close()


def gaps():
    """Captures that lost something: bytes, a whole direction, or the right time."""
    def one_sided(side, *steps):
        connection = Connection()
        for request, response in steps:
            connection.c(request).s(response)
        connection.close()
        kept = address(connection.ends[side][0])
        connection.packets = [packet for packet in connection.packets if packet[12:16] == kept]
        return connection

    yield one_sided("c", (get("/client-side-only"), ok(b"x" * 500)), (get("/client-side-again"), ok()))
    yield one_sided("s", (get("/server-side-only"), ok(b"x" * 500)), (get("/server-side-again"), ok()))
    head, padded = get("/in-head", "1.1", "X: " + "y" * 100), ok(b"x" * 50, "X: " + "y" * 100)
    yield (Connection().c(head[:60]).lose("c", 40).c(head[100:]).s(ok()).c(get("/after-in-head")).s(ok(b"22")).close())
    yield (Connection().c(get("/before-request")).s(ok(b"1")).lose("c", len(get("/lost"))).s(ok(b"22"))
           .c(get("/after-request")).s(ok(b"333")).close())
    yield (Connection().c(get("/before-response")).s(ok(b"1")).c(get("/response-lost")).lose("s", len(ok(b"22")))
           .c(get("/after-response")).s(ok(b"333")).close())
    yield (Connection().c(get("/in-response-head")).s(padded[:30]).lose("s", 60).s(padded[90:])
           .c(get("/after-response-head")).s(ok(b"1")).close())
    body = chunked(b"a" * 50, b"b" * 50, b"c" * 50)
    yield (Connection().c(get("/in-chunks")).s(body[:80]).lose("s", 60).s(body[140:]).c(get("/after-chunks")).s(ok())
           .close())
    yield (Connection().c(get("/in-until-close")).s(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + b"q" * 50)
           .lose("s", 30).s(b"r" * 20).close())
    yield (Connection().c(get("/huge")).s(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 100)
           .lose("s", 4_999_000).s(b"x" * 900).c(get("/after-huge")).s(ok()).close())
    connection = Connection(open=False)
    connection.put("c", SYN, advance=1)
    connection.next["s"] += 1
    yield connection.c(get("/no-syn-ack")).s(ok()).close()
    connection = Connection(open=False)
    connection.next["c"] += 1
    connection.put("s", SYN | ACK, advance=1)
    yield connection.c(get("/no-syn")).s(ok()).close()
    yield Connection(source_port=18888).c(get("/no-end")).s(ok(b"1"))
    yield Connection(source_port=18888, client_isn=2_000_000, server_isn=3_000_000).c(get("/new-start")).s(ok()).close()


def taps():
    """A tap with an interface for each direction, then one where both interfaces see all."""
    connection = exchange(get("/one-way-each"), ok(b"tap"))
    client = address(connection.ends["c"][0])
    for packet in connection.packets:
        yield (RAW, packet) if packet[12:16] == client else (ETHERNET, MAC + b"\x08\0" + packet)
    for packet in exchange(get("/seen-twice"), ok(b"twice")).packets:
        yield RAW, packet
        yield ETHERNET, MAC + b"\x81\0\0\5\x08\0" + packet


def links():
    """One exchange for each link layer, as (link type, frame) pairs."""
    def framed(name, link, wrap, **more):
        connection = exchange(get(f"/{name}"), ok(name.encode()), **more)
        return [(link, wrap(packet)) for packet in connection.packets]

    def ethernet(kind, prefix=b""):
        return lambda packet: MAC + prefix + struct.pack(">H", kind) + packet

    six = {"client": "2001:db8::1", "server": "2001:db8::2"}
    sll = struct.pack(">HHH8s", 0, 1, 6, MAC[:6])
    yield framed("ethernet", ETHERNET, ethernet(0x800))
    yield framed("ethernet-ipv6", ETHERNET, ethernet(0x86DD), **six)
    yield framed("ethernet-padded", ETHERNET, lambda p: MAC + b"\x08\0" + p + b"\xee" * max(0, 46 - len(p)))
    yield framed("vlan", ETHERNET, ethernet(0x800, b"\x81\0\0\x05"))
    yield framed("qinq", ETHERNET, ethernet(0x800, b"\x88\xa8\0\x06\x81\0\0\x05"))
    yield framed("vlan-in-vlan", ETHERNET, ethernet(0x800, b"\x81\0\0\x06\x81\0\0\x05"))
    yield framed("mpls", ETHERNET, lambda p: MAC + b"\x88\x47" + struct.pack(">I", 16 << 12 | 1 << 8 | 64) + p)
    yield framed("pppoe", ETHERNET, lambda p: MAC + b"\x88\x64\x11\0\0\x01" + struct.pack(">H", len(p) + 2) + b"\0\x21" + p)
    yield framed("raw", RAW, lambda p: p)
    yield framed("raw-ipv6", RAW, lambda p: p, **six)
    yield framed("null-little", NULL, lambda p: b"\x02\0\0\0" + p)
    yield framed("null-ipv6-mac", NULL, lambda p: b"\x1e\0\0\0" + p, **six)
    yield framed("null-ipv6-freebsd", NULL, lambda p: b"\x1c\0\0\0" + p, **six)
    yield framed("loop", LOOP, lambda p: b"\0\0\0\x02" + p)
    yield framed("sll", SLL, lambda p: sll + b"\x08\0" + p)
    yield framed("sll-vlan", SLL, lambda p: sll + b"\x81\0\0\x05\x08\0" + p)
    yield framed("sll2", SLL2, lambda p: struct.pack(">HHIHBB8s", 0x800, 0, 2, 1, 0, 6, MAC[:6]) + p)
    yield framed("sll2-ipv6", SLL2, lambda p: struct.pack(">HHIHBB8s", 0x86DD, 0, 2, 1, 4, 6, MAC[:6]) + p, **six)


def tunnels():
    """One exchange for each tunnel, over Ethernet."""
    out = ("192.0.2.1", "192.0.2.2")
    six = {"client": "2001:db8::1", "server": "2001:db8::2"}

    def tunnel(name, wrap, **more):
        connection = exchange(get(f"/{name}"), ok(name.encode()), **more)
        return [(ETHERNET, MAC + (b"\x86\xdd" if outer[0] >> 4 == 6 else b"\x08\0") + outer)
                for outer in map(wrap, connection.packets)]

    inner = MAC + b"\x08\0"
    yield tunnel("ipip", lambda p: ipv4(*out, 4, p))
    yield tunnel("6in4", lambda p: ipv4(*out, 41, p), **six)
    yield tunnel("4in6", lambda p: ipv6("2001:db8::8", "2001:db8::9", 4, p))
    yield tunnel("gre", lambda p: ipv4(*out, 47, b"\0\0\x08\0" + p))
    yield tunnel("gre-key-seq", lambda p: ipv4(*out, 47, b"\x30\0\x08\0" + struct.pack(">II", 7, 1) + p))
    yield tunnel("gre-ethernet", lambda p: ipv4(*out, 47, b"\0\0\x65\x58" + inner + p))
    yield tunnel("vxlan", lambda p: ipv4(*out, 17, udp(50000, 4789, b"\x08\0\0\0\0\0\x2a\0" + inner + p)))
    yield tunnel("geneve", lambda p: ipv4(*out, 17, udp(50000, 6081, b"\0\0\x65\x58\0\0\x2a\0" + inner + p)))
    yield tunnel("gtp-u", lambda p: ipv4(*out, 17, udp(2152, 2152, b"\x30\xff" + struct.pack(">HI", len(p), 9) + p)))
    yield tunnel("teredo", lambda p: ipv4(*out, 17, udp(50000, 3544, p)), **six)

    def fragments(connection, cut):
        for number, packet in enumerate(connection.packets):
            payload = packet[20:]
            if len(payload) <= 40:
                yield packet
                continue
            size = 24 if cut else 40
            parts = [(at, payload[at:at + size]) for at in range(0, len(payload), size)]
            for at, part in parts[::-1] if cut else parts:
                more = 0x2000 if at + size < len(payload) else 0
                ends = [".".join(map(str, packet[i:i + 4])) for i in (12, 16)]
                yield ipv4(*ends, 6, part, fragment=more | at // 8, ident=number + 1)

    for name, cut in (("ipv4-fragments", False), ("ipv4-fragments-reversed", True)):
        connection = exchange(get(f"/{name}"), ok(name.encode()), client=f"10.0.{1 + cut}.1")
        yield [(ETHERNET, MAC + b"\x08\0" + packet) for packet in fragments(connection, cut)]
    connection = exchange(get("/ipv6-extensions"), ok(b"extended"), **six)
    extended = []
    for p in connection.packets:
        extension = bytes([60, 0]) + b"\1\4\0\0\0\0" + bytes([6, 0]) + b"\1\4\0\0\0\0"
        extended.append(p[:4] + struct.pack(">H", len(p) - 40 + 16) + b"\0" + p[7:40] + extension + p[40:])
    yield [(ETHERNET, MAC + b"\x86\xdd" + p) for p in extended]
    connection = exchange(get("/ipv6-fragments"), ok(b"in pieces"), **six)
    pieces = []
    for number, p in enumerate(connection.packets):
        payload = p[40:]
        for at in range(0, len(payload), 32):
            more = 1 if at + 32 < len(payload) else 0
            part = struct.pack(">BBHI", 6, 0, at | more, number) + payload[at:at + 32]
            pieces.append(p[:4] + struct.pack(">H", len(part)) + b"\x2c" + p[7:40] + part)
    yield [(ETHERNET, MAC + b"\x86\xdd" + p) for p in pieces]


def pcap(file, link, packets, magic=0xA1B2C3D4, order="<"):
    with open(file, "wb") as out:
        out.write(struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 262144, link))
        for number, packet in enumerate(packets):
            unit = 1_000_000 if magic == 0xA1B2C3D4 else 1_000_000_000
            time = number * unit // 1000
            out.write(struct.pack(order + "IIII", 1_700_000_000 + time // unit, time % unit, len(packet), len(packet)))
            out.write(packet)


def pcapng(file, frames):
    """One interface for each link type; odd blocks and options between."""
    def block(kind, body):
        body += b"\0" * (-len(body) % 4)
        return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)

    interfaces = sorted({link for link, _ in frames})
    with open(file, "wb") as out:
        out.write(block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + struct.pack("<HH4sHH", 4, 4, b"test", 0, 0)))
        for link in interfaces:
            out.write(block(1, struct.pack("<HHI", link, 0, 0) + struct.pack("<HHB3xHH", 9, 1, 9, 0, 0)))
        out.write(block(0x0BAD, b"unknown block"))
        for number, (link, frame) in enumerate(frames):
            time = 1_700_000_000_000_000_000 + number * 1_000_000
            body = struct.pack("<IIIII", interfaces.index(link), time >> 32, time & 0xFFFFFFFF, len(frame), len(frame))
            out.write(block(6, body + frame + b"\0" * (-len(frame) % 4) + struct.pack("<HH4xHH", 2, 4, 0, 0)))


def main():
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    flat = lambda connections: [packet for connection in connections for packet in connection.packets]
    pcap(directory / "crafted-framing.pcap", RAW, flat(framing()))
    pcap(directory / "crafted-violations.pcap", RAW, flat(violations()))
    pcap(directory / "crafted-segments.pcap", RAW, flat(segments()), magic=0xA1B23C4D, order=">")
    pcap(directory / "crafted-gaps.pcap", RAW, flat(gaps()))
    pcapng(directory / "crafted-taps.pcapng", list(taps()))
    pcapng(directory / "crafted-links.pcapng", [frame for frames in links() for frame in frames])
    pcap(directory / "crafted-tunnels.pcap", ETHERNET, [frame for frames in tunnels() for _, frame in frames])


main()
