//! Connections that end before the response does: the outcome is what the parties themselves lived.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::OwnedFd,
    process::{Child, Command},
    time::Duration,
};

use support::{
    wire::{Framing, Wire, outcome},
    world::SERVER_POD,
};

use super::{
    agent::Agent,
    http::Client,
    seen::{Exchange, check},
    stage::{Stage, prepare},
};

/// What the servers here send of their responses, and what they promise.
const SENT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
const SENT_BYTES: u64 = 4;
const PROMISED_BYTES: u64 = 100;

/// A way to end: what was done on a new connection, whose targets all begin with what is given.
type Play = fn(Client, TcpStream, &str) -> Vec<Exchange>;

const PLAYS: [(&str, Play); 5] = [
    ("/server-killed", a_server_that_is_killed_has_closed),
    ("/server-killed-with-a-request-unread", a_server_that_is_killed_with_a_request_unread_has_reset),
    ("/client-closes", a_client_that_closes_before_the_response_has_closed),
    ("/client-resets", a_client_that_resets_before_the_response_has_reset),
    ("/client-closes-in-its-body", a_client_that_closes_in_its_own_body_has_closed),
];

#[test]
fn ends_are_told_as_the_parties_lived_them() {
    let mut stage = Stage::new();
    let agent = Agent::watch(&stage);
    let listener: TcpListener = stage.server.listen((SERVER_POD.v4, 0));
    let mut done = Vec::new();
    for (name, play) in PLAYS {
        let client = Client::connect(&mut stage.client, listener.local_addr().unwrap());
        let server = listener.accept().unwrap().0;
        prepare(&server);
        done.extend(play(client, server, name));
    }
    // The end of a connection may still be on its way.
    agent.wait_records("both ends are told", |records| records.len() >= 2 * done.len());
    check(&agent.end().records(), &done);
}

/// A process that has `connection` to itself, answers half and then does nothing.
fn server_process(connection: TcpStream) -> Child {
    let input = OwnedFd::from(connection.try_clone().unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", "printf '%s' \"$0\"; exec sleep 600", SENT]);
    command.stdin(input).stdout(OwnedFd::from(connection)).spawn().unwrap()
}

fn partial(target: &str, outcome: &str) -> Exchange {
    let outcome = outcome.to_owned();
    let (status, response_bytes) = (Some(200), Some(SENT_BYTES));
    Exchange { target: target.to_owned(), status, request_bytes: 0, response_bytes, outcome }
}

/// Kills a server in the middle of its response; gives how the client sees the end.
fn kill_in_mid_response(
    mut client: Client,
    mut server: TcpStream,
    target: &str,
    then: impl FnOnce(&mut Client),
) -> &'static str {
    client.request(target);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        server.read_exact(&mut byte).unwrap();
        request.extend(byte);
    }
    let mut process = server_process(server);
    assert_eq!(client.wire().head().unwrap().unwrap().word(1), "200");
    let mut read = 0;
    client.wire().body(Framing::Length(SENT_BYTES), &mut read).unwrap();
    then(&mut client);
    process.kill().unwrap();
    process.wait().unwrap();
    let rest = Framing::Length(PROMISED_BYTES - SENT_BYTES);
    outcome(&client.wire().body(rest, &mut read).unwrap_err()).unwrap()
}

fn a_server_that_is_killed_has_closed(client: Client, server: TcpStream, target: &str) -> Vec<Exchange> {
    let seen = kill_in_mid_response(client, server, target, |_| {});
    assert_eq!(seen, "closed");
    vec![partial(target, seen)]
}

fn a_server_that_is_killed_with_a_request_unread_has_reset(
    client: Client,
    server: TcpStream,
    target: &str,
) -> Vec<Exchange> {
    let unread = format!("{target}/unread");
    let seen = kill_in_mid_response(client, server, target, |client| client.request(&unread));
    assert_eq!(seen, "reset");
    vec![partial(target, seen), Exchange::unanswered(unread, seen)]
}

/// A client that gives up by `end`; gives how the server sees it.
fn give_up(mut client: Client, server: TcpStream, target: &str, end: impl FnOnce(Client)) -> &'static str {
    client.request(target);
    let mut server = Wire::new(server).unwrap();
    server.head().unwrap().expect("a request");
    end(client);
    match server.head() {
        Ok(_) => "closed",
        Err(error) => outcome(&error).unwrap(),
    }
}

fn a_client_that_closes_before_the_response_has_closed(
    client: Client,
    server: TcpStream,
    target: &str,
) -> Vec<Exchange> {
    let seen = give_up(client, server, target, drop);
    assert_eq!(seen, "closed");
    vec![Exchange::unanswered(target, seen)]
}

fn a_client_that_resets_before_the_response_has_reset(
    client: Client,
    server: TcpStream,
    target: &str,
) -> Vec<Exchange> {
    let seen = give_up(client, server, target, |mut client| {
        let stream = client.wire().stream();
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    });
    assert_eq!(seen, "reset");
    vec![Exchange::unanswered(target, seen)]
}

fn a_client_that_closes_in_its_own_body_has_closed(
    mut client: Client,
    mut server: TcpStream,
    target: &str,
) -> Vec<Exchange> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: kernel.test\r\nContent-Length: 100\r\n\r\n");
    client.wire().write(&[head.as_bytes(), &b"half"[..]].concat()).unwrap();
    drop(client);
    let mut all = Vec::new();
    server.read_to_end(&mut all).unwrap();
    server.flush().unwrap();
    vec![Exchange { request_bytes: SENT_BYTES, ..Exchange::unanswered(target, "closed") }]
}
