//! Everything of HTTP that has a structure of its own, and what is no HTTP, each with secrets of `~`.

use std::net::SocketAddr;

use support::conversation::Conversation;

const POST: &str = "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
const CHUNKED: &str = "5;ext=~\r\nhello\r\n0a \r\n0123456789\r\n0\r\nTrailer: ~\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET /b HTTP/1.1\r\nHost: h\r\n\r\n";
const FOLDED: &str = "GET /b HTTP/1.1\r\nHost: h\r\nX: a\r\n  ~\r\nY : ~ \r\nrubbish~\r\n\r\n";
const UPGRADE: &str = "GET /w HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n~~";

/// A name and a conversation for each.
pub(super) fn talk() -> Vec<(&'static str, Conversation)> {
    let said = said().into_iter().map(|(name, client, server)| {
        (name, Conversation::new().client(client.concat()).server(server.concat()).close())
    });
    said.chain(others()).collect()
}

/// What client and server say, once each.
fn said() -> Vec<(&'static str, Vec<&'static str>, Vec<&'static str>)> {
    vec![
        ("chunked", vec![POST, CHUNKED], vec![OK]),
        ("odd chunks", vec![POST, "0x5~\r\nhello\r\n0\r\n\r\n"], vec![OK]),
        ("broken chunks", vec![POST, "5\r\nhello~~~"], vec![OK]),
        ("pipelined", vec![GET, GET, GET], vec![OK, OK, OK]),
        ("line ends between", vec![GET, "\r\n\r\n", GET], vec![OK, "\r\n", OK]),
        ("line ends before", vec!["\r\n", GET], vec![OK]),
        ("until close", vec![GET], vec!["HTTP/1.0 200 ~~\r\n\r\n~~~~"]),
        ("interim", vec![GET], vec!["HTTP/1.1 100 Continue\r\n\r\n", OK]),
        ("folded", vec![FOLDED], vec![OK]),
        ("bare line feeds", vec!["GET /b HTTP/1.1\nHost: h \n\n"], vec!["HTTP/1.1 204 No\n\n"]),
        ("odd request line", vec!["  get\t/b c HTTP/1.2 \r\nHost: h\r\n\r\n"], vec![OK]),
        ("odd status line", vec![GET], vec!["ICY 200 OK\r\nContent-Length: 0\r\n\r\n"]),
        ("no version", vec!["GET /b\r\nHost: h\r\n\r\n"], vec![OK]),
        ("proxy 1", vec!["PROXY TCP4 1.2.3.4 5.6.7.8 111 80\r\n", GET], vec![OK]),
        ("proxy 1 with more", vec!["PROXY TCP4 1.2.3.4 5.6.7.8 111 80 ~~ ~\r\n", GET], vec![OK]),
        ("proxy unknown", vec!["PROXY UNKNOWN ~~\r\n", GET], vec![OK]),
        ("upgrade", vec![UPGRADE], vec!["HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n~~~~"]),
        ("http/2", vec!["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n~~~~"], vec!["~~~~"]),
        ("tls", vec!["\x16\x03\x01~~~~"], vec!["\x16\x03\x03~~~~"]),
        ("foreign", vec!["~~~~\r\n~~\r\n"], vec!["220 ~~~~\r\n"]),
        ("head cut off", vec![GET], vec!["HTTP/1.1 200 OK\r\nContent-Le"]),
        ("unknown method", vec!["BREW /pot HTTP/1.1\r\nHost: h\r\n\r\n"], vec![OK]),
        ("refused lengths", vec!["GET /b HTTP/1.1\r\nContent-Length: 1, 2\r\n\r\n~~", GET], vec![OK]),
    ]
}

fn others() -> Vec<(&'static str, Conversation)> {
    let addresses = [1, 2, 3, 4, 5, 6, 7, 8, 0, 111, 0, 80];
    let proxy = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x10".as_slice(), &addresses, b"\x01\x00\x01~"].concat();
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let connect = "CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n";
    let (new, joined) = (Conversation::new, Conversation::joined_in_the_middle);
    vec![
        ("proxy 2", new().client([&proxy, GET.as_bytes()].concat()).server(OK)),
        ("connect", new().client(connect).server("HTTP/1.1 200 OK\r\n\r\n").client("~~").server("~~")),
        (
            "socks",
            new()
                .client(b"\x05\x01\x00")
                .server(b"\x05\x00")
                .client(b"\x05\x01\x00~~~")
                .server(b"\x05\x00\x00~~~")
                .client(GET)
                .server(OK),
        ),
        ("lost before", joined().client(["~~~ ~~\r\n~~\"", GET].concat()).server(OK)),
        ("joined", joined().client(GET).server(OK)),
        ("near the end of numbers", new().isns(u32::MAX - 20, u32::MAX - 9).client(GET).server(OK).close()),
        (
            "ipv6",
            new()
                .addresses(address("[fd00::1]:4000"), address("[fd00::2]:80"))
                .client(GET)
                .server(OK)
                .close(),
        ),
    ]
}
