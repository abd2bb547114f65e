//! rsyslog on loopback, over TCP, TLS and UDP, that keeps what it read of each message in a file; and what comes in lines or datagrams
//! that are no messages of syslog, as they came, in another.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    keeper,
    server::{Server, free_port, listens, tls_file},
};

const MESSAGES: &str = "messages";
const RAW: &str = "raw";

/// A server, and where it listens.
#[derive(Debug)]
pub struct Rsyslog {
    /// Its process.
    pub server: Server,
    /// Of loopback, for TCP.
    pub tcp: u16,
    /// For TLS.
    pub tls: u16,
    /// For UDP.
    pub udp: u16,
    /// For lines of anything, over TCP.
    pub raw_tcp: u16,
    /// For datagrams of anything.
    pub raw_udp: u16,
}

/// A message as it was read.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Facility and severity, in words.
    pub pri: String,
    /// Of the message itself.
    pub time: String,
    pub hostname: String,
    pub app_name: String,
    pub procid: String,
    pub msgid: String,
    pub data: String,
    /// What it says.
    pub text: String,
}

/// Starts one with the settings of its folder, and waits until all `ports` are listened to.
pub fn server(settings: impl Fn(&Path) -> String, ports: Vec<u16>) -> Server {
    let prepare = move |folder: &Path| fs::write(folder.join("rsyslog.conf"), settings(folder)).unwrap();
    let start = |folder: &Path| {
        let mut command = keeper::command(Path::new("rsyslogd"));
        command.arg("-n").arg("-f").arg(folder.join("rsyslog.conf")).arg("-i").arg(folder.join("pid"));
        command
    };
    Server::start("rsyslog", prepare, start, move || ports.iter().all(|port| listens(*port)))
}

impl Rsyslog {
    /// Starts one, and waits until it listens.
    pub fn start() -> Self {
        let [tcp, tls, udp, raw_tcp, raw_udp] = std::array::from_fn(|_| free_port());
        let (certificate, key) = (tls_file("certificate.pem"), tls_file("key.pem"));
        // A message is in the file before the next one is read: what a kill loses was read by nobody but the kernel.
        let properties: String = [
            ("pri", "pri-text"),
            ("time", "timereported\" dateFormat=\"rfc3339"),
            ("hostname", "hostname"),
            ("app_name", "app-name"),
            ("procid", "procid"),
            ("msgid", "msgid"),
            ("data", "structured-data"),
            ("text", "msg"),
        ]
        .map(|(field, property)| {
            format!("property(outname=\"{field}\" name=\"{property}\" format=\"jsonf\")\n")
        })
        .concat();
        let settings = move |folder: &Path| {
            // It leaves the folder that it was started in.
            let [messages, raw] = [MESSAGES, RAW].map(|name| folder.join(name));
            format!(
                "global(maxMessageSize=\"128k\" defaultNetstreamDriver=\"ossl\"\n\
             defaultNetstreamDriverCAFile=\"{certificate}\" defaultNetstreamDriverCertFile=\"{certificate}\"\n\
             defaultNetstreamDriverKeyFile=\"{key}\")\n\
             main_queue(queue.type=\"Direct\")\n\
             module(load=\"imptcp\")\nmodule(load=\"imudp\")\n\
             module(load=\"imtcp\" streamDriver.name=\"ossl\" streamDriver.mode=\"1\" streamDriver.authMode=\"anon\")\n\
             template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
             ruleset(name=\"raw\") {{ action(type=\"omfile\" file=\"{}\" template=\"raw\") }}\n\
             input(type=\"imptcp\" address=\"127.0.0.1\" port=\"{raw_tcp}\" ruleset=\"raw\" supportOctetCountedFraming=\"off\")\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{raw_udp}\" ruleset=\"raw\")\n\
             template(name=\"json\" type=\"list\" option.jsonf=\"on\") {{\n{properties}}}\n\
             input(type=\"imptcp\" address=\"127.0.0.1\" port=\"{tcp}\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{tls}\")\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{udp}\")\n\
             action(type=\"omfile\" file=\"{}\" template=\"json\")\n",
                raw.display(),
                messages.display()
            )
        };
        Self { server: server(settings, [tcp, tls, raw_tcp].into()), tcp, tls, udp, raw_tcp, raw_udp }
    }

    /// Whether it has read a message yet.
    pub fn has_messages(&self) -> bool {
        fs::metadata(self.file()).is_ok_and(|file| file.len() > 0)
    }

    /// How many messages it has read, with what it says of itself.
    pub fn lines(&self) -> usize {
        fs::read(self.file()).unwrap_or_default().iter().filter(|byte| **byte == b'\n').count()
    }

    /// Whether a message has this in it, as JSON in JSON.
    pub fn has_read(&self, part: &str) -> bool {
        fs::read_to_string(self.file()).unwrap_or_default().contains(part)
    }

    /// All messages, in order of arrival. A line that a kill cut off is none, nor is what the server says of itself.
    pub fn messages(&self) -> Vec<Message> {
        let text = fs::read_to_string(self.file()).unwrap_or_default();
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
        messages.filter(|message| message.app_name != "rsyslogd").collect()
    }

    /// What came that is no syslog, in order of arrival, without what a kill cut off.
    pub fn raw(&self) -> Vec<String> {
        let text = fs::read_to_string(self.server.folder().join(RAW)).unwrap_or_default();
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().map(str::to_owned).collect()
    }

    fn file(&self) -> PathBuf {
        self.server.folder().join(MESSAGES)
    }
}
