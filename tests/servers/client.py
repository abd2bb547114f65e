"""A Python client for the opinion tier: client.py PORT CASE [NUMBER]. Prints nothing; fails if an answer is wrong."""

import http.client
import sys

PORT, CASE = int(sys.argv[1]), sys.argv[2]


def ask(connection, method, target, body=None, **headers):
    connection.request(method, target, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    response.read()
    return response.status


connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
if CASE == "mixed":
    assert ask(connection, "GET", "/size/3000") == 200
    assert ask(connection, "GET", "/chunked/4/900") == 200
    assert ask(connection, "HEAD", "/size/3000") == 200
    assert ask(connection, "POST", "/echo", body=b"p" * 9000) == 200
    assert ask(connection, "DELETE", "/status/204") == 204
    assert ask(connection, "GET", "/status/304") == 304
    assert ask(connection, "GET", "/status/500") == 500
    assert ask(connection, "GET", "/close/4000") == 200
    assert ask(connection, "GET", "/size/1") == 200
elif CASE == "upload":
    pieces = (b"x" * 100 for _ in range(int(sys.argv[3])))
    connection.request("PUT", "/echo", body=pieces, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert connection.getresponse().read() != b""
elif CASE == "odd":
    for target in sys.argv[3:]:
        ask(connection, "GET", target)
connection.close()
