//! Pairs tshark's requests and responses: first in, first out on each connection (RFC 9112 9.3.2). Written apart from
//! the product's pairing, so that the two can disagree.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    listing::{Ends, Line, Listing},
    tshark::{Head, Message},
};

/// Messages of one TCP connection, each direction in its order.
#[derive(Default)]
struct Stream {
    ends: Option<Ends>,
    requests: VecDeque<(String, String, u64)>,
    responses: VecDeque<(u16, u64)>,
}

/// The list of exchanges that tshark's messages make.
pub(crate) fn pair(messages: &[Message]) -> Listing {
    let mut streams: BTreeMap<u32, Stream> = BTreeMap::new();
    for message in messages {
        let stream = streams.entry(message.stream).or_default();
        match &message.head {
            Head::Request(method, target) => {
                stream.ends = Some(Ends { client: message.source, server: message.destination });
                stream.requests.push_back((method.clone(), target.clone(), message.body));
            }
            Head::Response(status) => {
                stream.ends.get_or_insert(Ends { client: message.destination, server: message.source });
                stream.responses.push_back((*status, message.body));
            }
        }
    }
    let mut listing = Listing::new();
    for stream in streams.into_values() {
        if let Some(ends) = stream.ends {
            listing.entry(ends).or_default().extend(lines(stream));
        }
    }
    listing
}

/// One line a request, and one for each response that is left over.
fn lines(mut stream: Stream) -> Vec<Line> {
    // An interim response is not the answer (RFC 9110 15.2); 101 is the last HTTP message (RFC 9110 15.2.2).
    stream.responses.retain(|&(status, _)| status >= 200 || status == 101);
    let mut lines = Vec::new();
    for (method, target, request_body) in stream.requests {
        let response = stream.responses.pop_front();
        lines.push(Line {
            method: Some(method),
            target: Some(target),
            request_body: Some(request_body),
            status: response.map(|(status, _)| status),
            response_body: response.map(|(_, body)| body),
        });
    }
    lines.extend(stream.responses.into_iter().map(|(status, body)| Line {
        status: Some(status),
        response_body: Some(body),
        ..Line::default()
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(stream: u32, head: Head, body: u64) -> Message {
        let (client, server) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 80).into());
        let (source, destination) =
            if matches!(head, Head::Request(..)) { (client, server) } else { (server, client) };
        Message { stream, source, destination, head, body }
    }

    fn request(target: &str) -> Message {
        message(0, Head::Request("GET".to_owned(), target.to_owned()), 0)
    }

    /// Messages in, lines as text out.
    fn check(messages: &[Message], expected: &[&str]) {
        let lines: Vec<String> =
            pair(messages).into_values().flatten().map(|line| line.to_string()).collect();
        assert_eq!(lines, expected);
    }

    #[test]
    fn pipelined_requests_are_answered_in_order() {
        let messages = [
            request("/a"),
            request("/b"),
            message(0, Head::Response(200), 5),
            message(0, Head::Response(404), 0),
        ];
        check(&messages, &["GET /a 0 200 5", "GET /b 0 404 0"]);
    }

    #[test]
    fn a_late_request_of_a_finished_upload_still_gets_the_first_response() {
        check(&[message(0, Head::Response(413), 1), request("/a")], &["GET /a 0 413 1"]);
    }

    #[test]
    fn interim_responses_answer_nothing_but_101_does() {
        let messages =
            [request("/a"), message(0, Head::Response(100), 0), message(0, Head::Response(103), 0)];
        check(&messages, &["GET /a 0 - -"]);
        check(&[request("/a"), message(0, Head::Response(101), 0)], &["GET /a 0 101 0"]);
    }

    #[test]
    fn a_response_without_a_request_is_a_line_of_its_own() {
        check(&[message(0, Head::Response(408), 3)], &["- - - 408 3"]);
    }

    #[test]
    fn a_reused_tuple_gives_one_list_in_order() {
        let mut second = request("/b");
        second.stream = 1;
        check(&[second, request("/a")], &["GET /a 0 - -", "GET /b 0 - -"]);
    }
}
