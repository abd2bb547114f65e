//! Where messages begin and end.

use super::Talk;

#[test]
fn keep_alive() {
    Talk::new()
        .c("GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        .s("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        .c("POST /b HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
        .s("HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .check(&["GET /a 200 0/5 complete", "POST /b 404 3/3 complete"]);
}
