//! The independent decoder: runs tshark and takes the list of HTTP messages out of its PDML. Pairs nothing.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result, bail};

use crate::programs::run;

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Head {
    /// Method and target.
    Request(String, String),
    /// Status.
    Response(u16),
}

/// One HTTP message as tshark tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// tshark's number of the TCP connection.
    pub(crate) stream: u32,
    /// Sender.
    pub(crate) source: SocketAddr,
    /// Receiver.
    pub(crate) destination: SocketAddr,
    /// Start line.
    pub(crate) head: Head,
    /// Bytes of content after removal of chunked coding, before content decoding.
    pub(crate) body: u64,
}

/// Preferences of tshark, fixed here so that a user's own settings do not matter.
const PREFERENCES: [&str; 8] = [
    "tcp.desegment_tcp_streams:TRUE",
    "tcp.reassemble_out_of_order:TRUE",
    "tcp.analyze_sequence_numbers:TRUE",
    "http.desegment_headers:TRUE",
    "http.desegment_body:TRUE",
    "http.dechunk_body:TRUE",
    "http.decompress_body:FALSE",
    "ip.defragment:TRUE",
];

/// All HTTP messages of `capture` in the order in which tshark completes them. `ports` are decoded as HTTP even if
/// their numbers are unusual.
pub(crate) fn messages(capture: &Path, ports: &[u16], directory: &Path) -> Result<Vec<Message>> {
    let mut arguments = vec!["-n".to_owned(), "-r".to_owned(), capture.display().to_string()];
    for preference in PREFERENCES {
        arguments.extend(["-o".to_owned(), preference.to_owned()]);
    }
    for port in ports {
        arguments.extend(["-d".to_owned(), format!("tcp.port=={port},http")]);
    }
    arguments.extend(["-Y", "http", "-T", "pdml"].map(str::to_owned));
    let pdml = run("tshark", &arguments, directory, &[0])?;
    parse(&String::from_utf8_lossy(&pdml)).with_context(|| format!("tshark of {}", capture.display()))
}

/// The addresses of the packet that is being read.
#[derive(Default)]
struct Packet {
    source: Option<String>,
    destination: Option<String>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
    stream: Option<u32>,
}

impl Packet {
    /// An empty message from this packet's sender.
    fn message(&self, head: Head) -> Result<Message> {
        let end = |address: &Option<String>, port: Option<u16>| -> Result<SocketAddr> {
            let address = address.as_deref().context("no address")?.parse().context("address")?;
            Ok(SocketAddr::new(address, port.context("no port")?))
        };
        Ok(Message {
            stream: self.stream.context("no stream")?,
            source: end(&self.source, self.source_port)?,
            destination: end(&self.destination, self.destination_port)?,
            head,
            body: 0,
        })
    }
}

/// Reads PDML line by line: tshark writes one element a line.
fn parse(pdml: &str) -> Result<Vec<Message>> {
    let mut messages: Vec<Message> = Vec::new();
    let mut packet = Packet::default();
    let mut method = None;
    // Bytes that tshark takes for HTTP without a start line are content of no message.
    let mut started = false;
    for line in pdml.lines().map(str::trim_start) {
        if line.starts_with("<packet>") {
            packet = Packet::default();
            method = None;
            continue;
        }
        let Some(name) = attribute(line, "name") else { continue };
        // The text of content may go over many lines; of all that is read below it stands on one.
        let show = || attribute(line, "show").with_context(|| format!("no value: {line}"));
        match name.as_str() {
            "http" if line.starts_with("<proto ") => started = false,
            // The innermost header counts: tunnels have several.
            "ip.src" | "ipv6.src" => packet.source = Some(show()?),
            "ip.dst" | "ipv6.dst" => packet.destination = Some(show()?),
            "tcp.srcport" => packet.source_port = Some(show()?.parse()?),
            "tcp.dstport" => packet.destination_port = Some(show()?.parse()?),
            "tcp.stream" => packet.stream = Some(show()?.parse()?),
            "http.request.method" => method = Some(show()?),
            "http.request.uri" => {
                let method = method.take().context("a target without a method")?;
                messages.push(packet.message(Head::Request(method, show()?))?);
                started = true;
            }
            "http.response.code" => {
                messages.push(packet.message(Head::Response(show()?.parse()?))?);
                started = true;
            }
            "http.file_data" => {
                let size = file_data_size(line)?;
                if let Some(message) = messages.last_mut().filter(|_| started) {
                    message.body = size;
                }
            }
            _ => {}
        }
    }
    Ok(messages)
}

/// The size in `showname="File Data: 10 bytes"`.
fn file_data_size(line: &str) -> Result<u64> {
    let name = attribute(line, "showname").context("file data without a name")?;
    let Some(size) = name.strip_prefix("File Data: ").and_then(|rest| rest.split(' ').next()) else {
        bail!("not a size: {name}");
    };
    size.parse().with_context(|| format!("not a size: {name}"))
}

/// The value of an attribute, its XML entities resolved.
fn attribute(line: &str, name: &str) -> Option<String> {
    let start = line.find(&format!(" {name}=\""))? + name.len() + 3;
    let value = line.get(start..)?;
    let value = value.get(..value.find('"')?)?;
    let value =
        value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    Some(value.replace("&amp;", "&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: &str = r#"
<packet>
  <proto name="ip">
    <field name="ip.src" showname="Source" size="4" pos="26" show="127.0.0.1" value="7f000001"/>
    <field name="ip.dst" showname="Destination" size="4" pos="30" show="127.0.0.2" value="7f000002"/>
    <field name="tcp.srcport" showname="Source Port: 1" size="2" pos="34" show="1" value="0001"/>
    <field name="tcp.dstport" showname="Destination Port: 80" size="2" pos="36" show="80" value="0050"/>
    <field name="tcp.stream" showname="Stream index: 17" size="0" pos="34" show="17"/>
      <field name="http.request.method" showname="Request Method: PUT" size="3" show="PUT" value="474554"/>
      <field name="http.request.uri" showname="Request URI" size="2" show="/a?b=1&amp;c=&quot;2&quot;" value="2f61"/>
    <field name="http.file_data" showname="File Data: 10 bytes" size="10" pos="112" show="yyyyyyyyyy"/>
      <field name="http.response.code" showname="Status Code: 204" size="3" show="204" value="323030"/>
</packet>"#;

    #[test]
    fn messages_are_read_in_order_with_their_bodies() {
        let messages = parse(PACKET).unwrap();
        assert_eq!(messages.len(), 2);
        assert_eq!(messages[0].head, Head::Request("PUT".to_owned(), "/a?b=1&c=\"2\"".to_owned()));
        assert_eq!((messages[0].stream, messages[0].body), (17, 10));
        assert_eq!(messages[0].source, "127.0.0.1:1".parse().unwrap());
        assert_eq!(messages[1].head, Head::Response(204));
        assert_eq!(messages[1].body, 0);
    }

    #[test]
    fn bytes_without_a_start_line_belong_to_no_message() {
        let stray = r#"  <proto name="http" showname="Hypertext Transfer Protocol" size="7">
    <field name="http.file_data" showname="File Data: 7 bytes" size="7" pos="0" show="strange"/>"#;
        let messages = parse(&format!("{PACKET}\n{stray}")).unwrap();
        assert_eq!(messages.iter().map(|message| message.body).collect::<Vec<_>>(), [10, 0]);
    }

    #[test]
    fn an_unreadable_size_is_an_error() {
        assert!(
            parse(r#"<field name="http.file_data" showname="File Data: some bytes" show="y"/>"#).is_err()
        );
    }
}
