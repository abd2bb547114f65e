//! nginx on loopback as somebody that takes what is posted: the bodies of all requests are kept in a file, as they came.
//!
//! Three servers in one process: the first is who is asked, the second keeps a body before the first has its answer, and the third gives
//! that. What was answered is in the file, whenever the process is killed.

#![expect(clippy::unwrap_used, reason = "test support: a failure here is the test's failure")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use flate2::read::GzDecoder;

use crate::{
    keeper,
    server::{Server, free_port, listens, tls_file},
};

/// Where it keeps bodies: a line with length and coding before each.
const BODIES: &str = "bodies";

/// A server, and where it listens.
#[derive(Debug)]
pub struct Nginx {
    /// Its process.
    pub server: Server,
    /// Of loopback.
    pub port: u16,
}

impl Nginx {
    /// Starts one whose first server has these directives beside, and which has those of `http` beside.
    pub fn start(directives: &str, http: &str) -> Self {
        Self::with("", directives, http)
    }

    /// The same over TLS, with a certificate that vouches for itself.
    pub fn start_with_tls(directives: &str) -> Self {
        let (certificate, key) = (tls_file("certificate.pem"), tls_file("key.pem"));
        let directives = format!("ssl_certificate {certificate};\nssl_certificate_key {key};\n{directives}");
        Self::with(" ssl", &directives, "")
    }

    fn with(ssl: &str, directives: &str, http: &str) -> Self {
        let [port, keeps, answers] = [free_port(), free_port(), free_port()];
        let settings = format!(
            "master_process off; daemon off; pid pid; error_log log info;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n\
             access_log off; client_body_temp_path requests; proxy_temp_path answers;\n\
             client_body_buffer_size 8m; client_max_body_size 8m; client_body_in_single_buffer on;\n\
             log_format body escape=none '$content_length $http_content_encoding\\n$request_body';\n\
             {http}\n\
             server {{\nlisten 127.0.0.1:{port}{ssl};\n{directives}\n\
             location / {{ proxy_pass http://127.0.0.1:{keeps}; }}\n}}\n\
             server {{\nlisten 127.0.0.1:{keeps};\n\
             location / {{ access_log {BODIES} body; proxy_pass http://127.0.0.1:{answers}; }}\n}}\n\
             server {{\nlisten 127.0.0.1:{answers};\nlocation / {{ return 204; }}\n}}\n}}\n"
        );
        let prepare = move |folder: &Path| fs::write(folder.join("nginx.conf"), settings).unwrap();
        let start = |folder: &Path| {
            let mut command = keeper::command(Path::new("nginx"));
            command.arg("-p").arg(folder).args(["-e", "log", "-c", "nginx.conf"]);
            command
        };
        Self { server: Server::start("nginx", prepare, start, move || listens(port)), port }
    }

    /// Whether it has taken a body yet.
    pub fn has_bodies(&self) -> bool {
        fs::metadata(self.file()).is_ok_and(|file| file.len() > 0)
    }

    /// All bodies, decoded, in order of arrival. One that a kill cut off was not answered, and is none.
    pub fn bodies(&self) -> Vec<String> {
        let bytes = fs::read(self.file()).unwrap_or_default();
        let (mut rest, mut bodies) = (&bytes[..], Vec::new());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let head = str::from_utf8(&rest[..end]).unwrap();
            let (length, coding) = head.split_once(' ').unwrap();
            let length: usize = length.parse().unwrap();
            // And the end of its line.
            let Some(body) = rest[end + 1..].get(..=length) else { break };
            bodies.push(decode(coding, &body[..length]));
            rest = &rest[end + 1 + body.len()..];
        }
        bodies
    }

    /// The paths of all records, in order of arrival.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for body in self.bodies() {
            let records = serde_json::Deserializer::from_str(&body).into_iter::<serde_json::Value>();
            let path = |record: serde_json::Value| record["url.path"].as_str().unwrap().to_owned();
            for value in records {
                match value.unwrap() {
                    serde_json::Value::Array(records) => paths.extend(records.into_iter().map(path)),
                    record => paths.push(path(record)),
                }
            }
        }
        paths
    }

    fn file(&self) -> PathBuf {
        self.server.folder().join(BODIES)
    }
}

fn decode(coding: &str, body: &[u8]) -> String {
    match coding {
        // What nginx writes where there is no such header.
        "" | "-" => String::from_utf8(body.to_vec()).unwrap(),
        "gzip" => std::io::read_to_string(GzDecoder::new(body)).unwrap(),
        "zstd" => std::io::read_to_string(ruzstd::decoding::StreamingDecoder::new(body).unwrap()).unwrap(),
        other => panic!("{other}"),
    }
}
