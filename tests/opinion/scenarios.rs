//! The scenarios: which server, which client, what they say to each other. Records and compares nothing.

use anyhow::Result;

use crate::stage::Stage;

/// A conversation of real programs.
pub(crate) struct Scenario {
    /// Unique name, also of the committed capture.
    pub(crate) name: &'static str,
    /// Starts the server.
    pub(crate) server: fn(&mut Stage) -> Result<()>,
    /// Runs the clients to their end.
    pub(crate) client: fn(&mut Stage) -> Result<()>,
}

/// All scenarios.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "nginx-curl-keepalive", server: nginx, client: curl_keepalive },
    Scenario { name: "nginx-curl-conditional", server: nginx, client: curl_conditional },
    Scenario { name: "nginx-curl-ipv6", server: nginx, client: curl_ipv6 },
    Scenario { name: "nginx-curl-slow", server: nginx, client: curl_slow },
    Scenario { name: "nginx-wrk-pipelining", server: nginx, client: wrk_pipelining },
    Scenario { name: "nginx-ab-http10", server: nginx, client: ab_http10 },
    Scenario { name: "nginx-h2load-parallel", server: nginx, client: h2load_parallel },
    Scenario { name: "nginx-raw-refused", server: nginx, client: raw_refused },
    Scenario { name: "node-node-mixed", server: node, client: node_mixed },
    Scenario { name: "node-node-odd", server: node, client: node_odd },
    Scenario { name: "node-curl-upload", server: node, client: curl_upload },
    Scenario { name: "node-curl-proxy", server: node, client: curl_proxy },
    Scenario { name: "node-curl-cut", server: node, client: curl_cut },
    Scenario { name: "node-raw-upgrade", server: node, client: raw_upgrade },
    Scenario { name: "node-raw-lenient", server: node, client: raw_lenient },
    Scenario { name: "go-go-mixed", server: go, client: go_mixed },
    Scenario { name: "go-go-parallel", server: go, client: go_parallel },
    Scenario { name: "go-go-impatient", server: go, client: go_impatient },
    Scenario { name: "go-curl-refused", server: go, client: curl_refused },
    Scenario { name: "go-wrk-pipelining", server: go, client: wrk_pipelining_sizes },
    Scenario { name: "go-h2load-parallel", server: go, client: h2load_sizes },
    Scenario { name: "threads-python-mixed", server: threads, client: python_mixed },
    Scenario { name: "node-python-upload", server: node, client: python_upload },
    Scenario { name: "wsgi-ab-until-close", server: wsgi, client: ab_until_close },
    Scenario { name: "wsgi-curl-until-close", server: wsgi, client: curl_until_close },
    Scenario { name: "asyncio-python-odd", server: asyncio, client: python_odd },
    Scenario { name: "asyncio-raw-odd", server: asyncio, client: raw_odd },
    Scenario { name: "apache-curl-keepalive", server: apache, client: curl_keepalive },
    Scenario { name: "apache-curl-conditional", server: apache, client: curl_conditional },
    Scenario { name: "apache-curl-reflected", server: apache, client: curl_reflected },
    Scenario { name: "apache-wrk-pipelining", server: apache, client: wrk_pipelining },
    Scenario { name: "apache-ab-http10", server: apache, client: ab_http10 },
    Scenario { name: "apache-raw-refused", server: apache, client: raw_refused },
    Scenario { name: "haproxy-curl-mixed", server: haproxy, client: curl_through },
    Scenario { name: "haproxy-wrk-pipelining", server: haproxy, client: wrk_pipelining_sizes },
    Scenario { name: "haproxy-raw-refused", server: haproxy, client: raw_through },
    Scenario { name: "java-curl-mixed", server: java, client: curl_java },
    Scenario { name: "java-wrk-pipelining", server: java, client: wrk_pipelining_sizes },
    Scenario { name: "java-raw-odd", server: java, client: raw_java },
];

fn nginx(stage: &mut Stage) -> Result<()> {
    stage.nginx()
}

fn node(stage: &mut Stage) -> Result<()> {
    stage.node_server()
}

fn go(stage: &mut Stage) -> Result<()> {
    stage.go_server()
}

fn threads(stage: &mut Stage) -> Result<()> {
    stage.python_server("threads")
}

fn wsgi(stage: &mut Stage) -> Result<()> {
    stage.python_server("wsgi")
}

fn asyncio(stage: &mut Stage) -> Result<()> {
    stage.python_server("asyncio")
}

fn apache(stage: &mut Stage) -> Result<()> {
    stage.apache()
}

fn haproxy(stage: &mut Stage) -> Result<()> {
    stage.haproxy()
}

fn java(stage: &mut Stage) -> Result<()> {
    stage.java_server()
}

/// Two files of random size.
fn publish(stage: &mut Stage) -> Result<()> {
    let (small, big) = (stage.number(101, 5000), stage.number(50_000, 90_000));
    stage.publish("small", small)?;
    stage.publish("big", big)
}

fn curl_keepalive(stage: &mut Stage) -> Result<()> {
    publish(stage)?;
    stage.curl(&[
        "/small",
        "/missing",
        "/big?q=1&r=%20",
        "/small#fragment",
        "/",
        "/nothing",
        "/text/%7Eabc;d=e?",
    ])?;
    stage.pause(20);
    stage.curl(&["--location", "/moved", "/failed", "/closing", "/small"])?;
    stage.curl(&["--request", "DELETE", "/text", "--next", "--head", "/big", "/text", "--next", "/small"])
}

fn curl_conditional(stage: &mut Stage) -> Result<()> {
    publish(stage)?;
    let end = stage.number(10, 90);
    let ranges = format!("0-{end},-5");
    stage.curl(&["--range", "5-20", "/small", "--next", "--range", &ranges, "/small"])?;
    stage.curl(&["--range", "900000-", "/small", "--next", "--compressed", "/small", "/big"])?;
    stage.curl(&[
        "--header",
        "If-Modified-Since: Fri, 01 Jan 2100 00:00:00 GMT",
        "/small",
        "/big",
        "/missing",
    ])?;
    stage.curl(&["--header", "If-None-Match: *", "/small", "--next", "--header", "If-Match: \"x\"", "/small"])
}

fn curl_ipv6(stage: &mut Stage) -> Result<()> {
    publish(stage)?;
    let url = format!("http://[::1]:{}/small", stage.port);
    let count = stage.number(2, 9);
    let arguments = vec![url.as_str(); count];
    stage.curl(&arguments)?;
    stage.curl(&["/small", &url])
}

fn curl_slow(stage: &mut Stage) -> Result<()> {
    let size = stage.number(20_000, 60_000);
    stage.publish("slow", size)?;
    stage.curl(&["/slow", "/text"])
}

fn wrk_pipelining(stage: &mut Stage) -> Result<()> {
    publish(stage)?;
    let (connections, batches, depth) = (stage.number(2, 5), stage.number(5, 12), stage.number(6, 16));
    stage.wrk(connections, batches, depth, &["/small", "/text", "/missing", "/nothing"])
}

fn wrk_pipelining_sizes(stage: &mut Stage) -> Result<()> {
    let size = format!("/size/{}", stage.number(0, 4000));
    stage.wrk(3, 10, 7, &[&size, "/chunked/2/30", "/status/404"])
}

fn ab_http10(stage: &mut Stage) -> Result<()> {
    publish(stage)?;
    let requests = stage.number(10, 40).to_string();
    stage.client("ab", &["-q", "-n", &requests, "-c", "3", &stage.url("/small")])?;
    stage.client("ab", &["-q", "-k", "-n", &requests, "-c", "2", &stage.url("/text")])?;
    stage.client("ab", &["-q", "-i", "-k", "-n", "5", &stage.url("/big")])
}

fn h2load_parallel(stage: &mut Stage) -> Result<()> {
    publish(stage)?;
    let requests = stage.number(80, 120).to_string();
    let urls = [stage.url("/small"), stage.url("/missing"), stage.url("/text")];
    stage.client("h2load", &["--h1", "-n", &requests, "-c", "8", "-m", "1", &urls[0], &urls[1], &urls[2]])
}

fn h2load_sizes(stage: &mut Stage) -> Result<()> {
    let target = format!("/chunked/3/{}", stage.number(1, 3000));
    let url = stage.url(&target);
    stage.client("h2load", &["--h1", "-n", "60", "-c", "4", "-m", "3", &url])
}

fn raw_refused(stage: &mut Stage) -> Result<()> {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "u".repeat(9000));
    let header = format!("GET /text HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "h".repeat(9000));
    stage.raw(&[b"GET /text HTTP/1.1\r\nHost: a\r\n\r\nGET /text HTTP/1.1\r\n\r\n"])?;
    stage.raw(&[long.as_bytes()])?;
    stage.raw(&[b"GET /text HTTP/1.1\r\nHost: a\r\n\r\n", header.as_bytes()])?;
    stage.raw(&[b"POST /limited HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n"])?;
    stage.raw(&[b"GET /text HTTP/1.1\nHost: a\n\n", b"GET /text HTTP/1.1\nHost: a\n\n"])?;
    stage.raw(&[b"GET /text HTTP/1.0\r\n\r\n"])?;
    stage.raw(&[
        b"PUT /text HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
        b"cGET /text HTTP/1.1\r\nHost: a\r\n\r\n",
    ])
}

fn node_mixed(stage: &mut Stage) -> Result<()> {
    stage.node_client("mixed")
}

fn node_odd(stage: &mut Stage) -> Result<()> {
    stage.node_client("odd")
}

fn curl_upload(stage: &mut Stage) -> Result<()> {
    let size = stage.number(2000, 60_000);
    stage.publish_upload(size)?;
    let expect = ["--header", "Expect: 100-continue", "--data-binary", "@upload"];
    stage.curl(&[&expect[..], &["/echo", "--next", "--upload-file", "upload", "/echo"]].concat())?;
    stage.curl(&["--header", "Transfer-Encoding: chunked", "--data-binary", "@upload", "/echo", "/echo"])?;
    stage.curl(&["--form", "file=@upload", "--form", "name=value", "/echo"])?;
    stage.curl(&["--data", "a=1&b=2", "/echo", "/missing", "--next", "/events/3/2", "/slow/9/1"])?;
    stage.curl(&["--request-target", "*", "--request", "OPTIONS", "/"])
}

fn curl_proxy(stage: &mut Stage) -> Result<()> {
    let proxy = stage.url("");
    stage.curl(&[
        "--proxy",
        &proxy,
        "http://example.test/size/100",
        "http://example.test:99/status/404?x",
    ])?;
    // The server's tunnel sends back what it gets: no answer to curl (1: not HTTP, 52: nothing, 56: cut off).
    let tunnel = ["--proxytunnel", "--proxy", &proxy, "http://example.test:9999/in/the/tunnel"];
    stage.curl_that_may_end_with(&[0, 1, 8, 52, 56], &tunnel)
}

fn curl_cut(stage: &mut Stage) -> Result<()> {
    let target = format!("/cut/{}", stage.number(1, 3000));
    // 18: partial file.
    stage.curl_that_may_end_with(&[18], &["/size/10", &target])?;
    stage.curl(&["/size/20"])
}

fn raw_upgrade(stage: &mut Stage) -> Result<()> {
    stage.raw(&[
        b"GET /size/3 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
        b"\x81\x05hello",
    ])
}

fn raw_lenient(stage: &mut Stage) -> Result<()> {
    stage.raw(&[
        b"\r\nGET /size/1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nTrailer: 1\r\n\r\nGET /si",
        b"ze/2 HTTP/1.1\r\nHost:a\r\nConnection: close\r\n\r\n",
    ])
}

fn go_mixed(stage: &mut Stage) -> Result<()> {
    stage.go_client("mixed")
}

fn go_parallel(stage: &mut Stage) -> Result<()> {
    stage.go_client("parallel")
}

fn go_impatient(stage: &mut Stage) -> Result<()> {
    stage.go_client("impatient")
}

fn curl_refused(stage: &mut Stage) -> Result<()> {
    stage.publish_upload(3000)?;
    let expect = ["--header", "Expect: 100-continue", "--data-binary", "@upload"];
    stage.curl(&[&expect[..], &["/refuse", "--next", "/size/10"]].concat())?;
    // 28: curl's own time limit.
    stage.curl_that_may_end_with(&[28], &["--max-time", "0.2", "/slow/100/10"])
}

fn python_mixed(stage: &mut Stage) -> Result<()> {
    stage.python_client("mixed", &[])
}

fn python_upload(stage: &mut Stage) -> Result<()> {
    let pieces = stage.number(1, 200).to_string();
    stage.python_client("upload", &[&pieces])
}

fn ab_until_close(stage: &mut Stage) -> Result<()> {
    let target = format!("/close/{}/{}", stage.number(2, 9), stage.number(1, 3000));
    let url = stage.url(&target);
    stage.client("ab", &["-q", "-n", "12", "-c", "2", &url])
}

fn curl_until_close(stage: &mut Stage) -> Result<()> {
    let size = stage.number(0, 9000);
    stage.curl(&[&format!("/close/3/{size}"), &format!("/size/{size}"), "--data", "abc", "/echo"])?;
    stage.curl(&["--http1.0", "/size/7", "/missing"])?;
    stage.curl(&["--head", "/close/2/10"])
}

fn python_odd(stage: &mut Stage) -> Result<()> {
    let targets = ["/fold", "/noreason", "/extension", "/trailer", "/zeros", "/hex", "/lower", "/twice"];
    stage.python_client("odd", &targets)?;
    // Python's own client takes a 103 for the answer, so curl asks for those.
    stage.curl(&["/hints", "/hints"])?;
    stage.python_client("odd", &["/reset", "/teapot", "/unusual", "/dribble", "/other"])
}

fn raw_odd(stage: &mut Stage) -> Result<()> {
    stage.raw(&[
        b"GET /hints HTTP/1.1\nHost: a\n\n",
        b"GET /both HTTP/1.1\r\nX-Fold: a\r\n b\r\n\r\nGET /hex HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\n",
        b"!#$%&'*+-.^_`|~ /trailer HTTP/1.1\r\n\r\n",
    ])?;
    let request = b"GET /extension?a=\"b\"&<c> HTTP/1.1\r\nHost: a\r\n\r\n";
    let bytes: Vec<&[u8]> = request.chunks(1).collect();
    stage.raw(&bytes)
}

fn curl_reflected(stage: &mut Stage) -> Result<()> {
    let size = stage.number(1500, 5000);
    stage.publish_upload(size)?;
    stage.publish("small", 300)?;
    let upload = ["--data-binary", "@upload"];
    stage.curl(&[&upload[..], &["/echo", "/limited", "--next", "/small"]].concat())?;
    stage.curl(&[&upload[..], &["--header", "Transfer-Encoding: chunked", "/echo", "/limited"]].concat())?;
    stage.curl(&[&upload[..], &["--header", "Expect: 100-continue", "/echo", "/limited"]].concat())?;
    stage.curl(&["--request", "TRACE", "/small?q", "--next", "--request", "OPTIONS", "/small"])?;
    stage.curl(&["--http1.0", "--compressed", "/small", "/missing"])
}

fn curl_through(stage: &mut Stage) -> Result<()> {
    let size = format!("/size/{}", stage.number(1, 5000));
    let upload = stage.number(2000, 8000);
    stage.publish_upload(upload)?;
    stage.curl(&[&size, "/own", "/chunked/3/700", "/trailers/50", "/status/404", "/early/3", &size])?;
    stage.curl(&["--location", "/moved", "/nothing", "/denied", "/status/204", "/status/304"])?;
    stage.curl(&["--head", &size, "/own", "/denied", "--next", "--compressed", &size, "/chunked/2/900"])?;
    stage.curl(&["--data-binary", "@upload", "/echo", "--header", "Transfer-Encoding: chunked", "/echo"])?;
    stage.curl(&["--http1.0", &size, "/chunked/2/30", "--next", "/refuse", &size])?;
    stage.curl(&["/nobody", "/events/3/2"])
}

fn raw_through(stage: &mut Stage) -> Result<()> {
    stage.raw(&[b"GET /own HTTP/1.1\r\nHost: a\r\n\r\nGET /own HTTP/1.1\r\nHost: a\r\n\r\n"])?;
    stage.raw(&[b"GET /own HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"])?;
    stage.raw(&[b"GET /own HTTP/1.1\r\nHost: a b\r\nX y: z\r\n\r\n"])?;
    stage.raw(&[b"GET /own HTTP/1.0\r\n\r\n"])?;
    let header = format!("GET /own HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "h".repeat(20_000));
    stage.raw(&[b"GET /own HTTP/1.1\r\nHost: a\r\n\r\n", header.as_bytes()])?;
    stage.raw(&[
        b"POST /own HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
        b"cPOST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ])
}

fn curl_java(stage: &mut Stage) -> Result<()> {
    let size = format!("/size/{}", stage.number(1, 5000));
    let upload = stage.number(2000, 8000);
    stage.publish_upload(upload)?;
    stage.curl(&[&size, "/chunked/3/700", "/status/404", "/status/204", "/status/304", "/size/0", &size])?;
    stage.curl(&[
        "--location",
        "/redirect",
        "/missing",
        "/headers/20/100",
        "--next",
        "--head",
        &size,
        "/size/9",
    ])?;
    stage.curl(&["--data-binary", "@upload", "/echo", "--header", "Transfer-Encoding: chunked", "/echo"])?;
    stage.curl(&[
        "--header",
        "Expect: 100-continue",
        "--data-binary",
        "@upload",
        "/echo",
        "--next",
        &size,
    ])?;
    stage.curl(&["--http1.0", &size, "/chunked/2/30", "--next", "--request", "DELETE", &size])?;
    // 18: less than was promised.
    stage.curl_that_may_end_with(&[18], &["/cut/300"])
}

fn raw_java(stage: &mut Stage) -> Result<()> {
    stage.raw(&[b"GET /size/5 HTTP/1.1\r\nHost: a\r\n\r\nGET /size/6 HTTP/1.1\r\nHost: a\r\n\r\n"])?;
    stage.raw(&[b"GET /size/5 HTTP/1.1\nHost: a\n\n"])?;
    stage.raw(&[b"GET /size/5 HTTP/1.1\r\nHost: a\r\n\r\n", b"GET\r\n\r\n"])?;
    stage.raw(&[b"GET /size/5 HTTP/1.0\r\n\r\n"])?;
    stage.raw(&[b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"])?;
    stage.raw(&[b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", b"llo"])
}
