//! What librdkafka is told (its `CONFIGURATION.md`), and what of it is in files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::Config;
use crate::{
    delivery::Limits,
    record::text::push_base64,
    secrets::{MAX_PEM_BYTES, SecretError, Watched, small_file},
    sinks::remote::{Common, MAX_BATCH_BYTES},
};

/// Bytes of a message at most: what brokers take that say nothing else (`message.max.bytes` of Kafka, less what is around it).
pub const DEFAULT_MESSAGE_BYTES: usize = 1_000_000;
/// Less is no message (librdkafka, `message.max.bytes`).
pub const MIN_MESSAGE_BYTES: usize = 1000;
/// More no sink has in a batch.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// A file with a password has at most so many bytes.
pub const MAX_PASSWORD_BYTES: usize = 1024;
/// A port that is not written.
const DEFAULT_PORT: u16 = 9092;
/// Records wait so long for the rest of their batch, which comes at once: then few requests have many.
const LINGER: Duration = Duration::from_millis(2);
/// A topic that the cluster does not tell of is missing after so long: one that was just made is told of in less.
const TOPIC_TIME: Duration = Duration::from_secs(2);
/// Where topics are, and whether there are new ones, is asked this often.
const TOPIC_PERIOD: Duration = Duration::from_secs(10);
/// The longest wait between two attempts to connect: below the time of an attempt.
const RECONNECT_TIME: Duration = Duration::from_secs(5);

/// Where brokers are: some of them, which tell of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brokers {
    /// They speak TLS.
    pub is_tls: bool,
    /// Hosts and ports.
    pub hosts: Vec<String>,
}

impl Brokers {
    /// Reads `kafka://host[:port],…` or `kafka+tls://`.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, hosts) = text.split_once("://")?;
        let is_tls = match scheme.to_ascii_lowercase().as_str() {
            "kafka" => false,
            "kafka+tls" => true,
            _ => return None,
        };
        let hosts = hosts.trim_end_matches('/').split(',').map(|host| {
            let authority: http::uri::Authority = host.trim().parse().ok()?;
            let is_plain = !authority.as_str().contains('@') && !authority.host().is_empty();
            let has_port = authority.as_str().len() > authority.host().len();
            let port = if has_port { authority.port_u16()? } else { DEFAULT_PORT };
            is_plain.then(|| format!("{}:{port}", authority.host()))
        });
        Some(Self { is_tls, hosts: hosts.collect::<Option<_>>()? })
    }
}

/// Who we are to brokers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How we say it.
    pub mechanism: Mechanism,
    /// Our name.
    pub user: String,
    /// Where our password is.
    pub password_file: PathBuf,
}

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal, $told:literal;)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its word in our settings.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// Its word in librdkafka's.
            const fn told(self) -> &'static str {
                match self { $(Self::$variant => $told,)+ }
            }

            /// What a word of our settings means.
            pub fn parse(word: &str) -> Option<Self> {
                Self::ALL.iter().find(|one| one.as_str() == word).copied()
            }
        }
    };
}

words! {
    /// How we say who we are.
    Mechanism {
        /// RFC 4616: as it is.
        Plain = "plain", "PLAIN";
        /// RFC 7677.
        Scram256 = "scram_sha_256", "SCRAM-SHA-256";
        /// The same with SHA-512.
        Scram512 = "scram_sha_512", "SCRAM-SHA-512";
    }
}

words! {
    /// How many brokers must have a record before it counts as taken.
    Acks {
        /// Nobody is asked.
        None = "0", "0";
        /// The partition's leader.
        Leader = "1", "1";
        /// All that are in sync.
        All = "all", "all";
    }
}

words! {
    /// How batches are compressed.
    Compression {
        /// Not at all.
        None = "none", "none";
        /// RFC 1952.
        Gzip = "gzip", "gzip";
        /// Snappy.
        Snappy = "snappy", "snappy";
        /// LZ4.
        Lz4 = "lz4", "lz4";
        /// RFC 8878.
        Zstd = "zstd", "zstd";
    }
}

words! {
    /// How a record's partition follows from its key; one without is put into any.
    Partitioner {
        /// CRC-32, as librdkafka's and Ruby's clients do.
        Crc32 = "crc32", "consistent_random";
        /// MurmurHash 2, as the Java client does.
        Murmur2 = "murmur2", "murmur2_random";
        /// FNV-1a, as Sarama does.
        Fnv1a = "fnv1a", "fnv1a_random";
        /// Any, whatever the key.
        Random = "random", "random";
    }
}

/// What is in files, as it was when they were read.
#[derive(Default)]
pub struct Secrets {
    authorities: String,
    own: Option<(String, String)>,
    password: Option<String>,
}

impl Config {
    /// Reads the files, to see whether they can be used; each that cannot be.
    pub fn check_files(&self) -> Vec<SecretError> {
        let tls = self.brokers.is_tls.then(|| self.tls.connector().err()).flatten();
        let password = self.sasl.as_ref().and_then(|sasl| password(&sasl.password_file).err());
        tls.into_iter().chain(password).collect()
    }

    /// What is in the files, now and whenever they have changed.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn secrets(&self) -> Result<Watched<Arc<Secrets>>, SecretError> {
        let mut files = if self.brokers.is_tls { self.tls.files() } else { Vec::new() };
        files.extend(self.sasl.iter().map(|sasl| sasl.password_file.clone()));
        let config = self.clone();
        Watched::new(files, move |_: &[PathBuf]| config.read_secrets().map(Arc::new))
    }

    fn read_secrets(&self) -> Result<Secrets, SecretError> {
        let mut secrets = Secrets::default();
        if self.brokers.is_tls {
            // What rustls can use OpenSSL can; and it says what is wrong.
            self.tls.connector()?;
            secrets.authorities = match &self.tls.authorities {
                Some(file) => pem(file)?,
                None => authorities_of_this_machine(),
            };
            let own = self.tls.own.as_ref().map(|(certificate, key)| Ok((pem(certificate)?, pem(key)?)));
            secrets.own = own.transpose()?;
        }
        secrets.password = self.sasl.as_ref().map(|sasl| password(&sasl.password_file)).transpose()?;
        Ok(secrets)
    }

    /// What librdkafka is told.
    pub fn settings(&self, common: &Common, secrets: &Secrets) -> Vec<(&'static str, String)> {
        let Limits { concurrency, timeout, .. } = common.limits;
        let milliseconds = |time: Duration| time.as_millis().to_string();
        let security = match (self.brokers.is_tls, &self.sasl) {
            (false, None) => "plaintext",
            (true, None) => "ssl",
            (false, Some(_)) => "sasl_plaintext",
            (true, Some(_)) => "sasl_ssl",
        };
        // All that is under way at once, and what a batch is longer by than it should be. Records wait in our queue.
        let bytes = concurrency * (MAX_BATCH_BYTES + self.message_bytes);
        let records = usize::try_from(common.batch_records).unwrap_or(usize::MAX).saturating_mul(concurrency);
        let mut settings = vec![
            ("bootstrap.servers", self.brokers.hosts.join(",")),
            ("client.id", self.client_id.clone()),
            ("security.protocol", security.to_owned()),
            ("acks", self.acks.told().to_owned()),
            ("enable.idempotence", self.is_idempotent.to_string()),
            ("compression.type", self.compression.told().to_owned()),
            ("partitioner", self.partitioner.told().to_owned()),
            ("message.max.bytes", self.message_bytes.to_string()),
            ("batch.size", self.message_bytes.to_string()),
            ("queue.buffering.max.kbytes", (bytes / 1024).to_string()),
            ("queue.buffering.max.messages", records.to_string()),
            ("linger.ms", milliseconds(LINGER)),
            ("message.timeout.ms", milliseconds(message_time(timeout))),
            ("reconnect.backoff.max.ms", milliseconds(RECONNECT_TIME)),
            ("allow.auto.create.topics", false.to_string()),
            ("topic.metadata.propagation.max.ms", milliseconds(TOPIC_TIME)),
            ("topic.metadata.refresh.interval.ms", milliseconds(TOPIC_PERIOD)),
            ("socket.keepalive.enable", true.to_string()),
            // Nobody asked it to tell of itself.
            ("enable.metrics.push", false.to_string()),
        ];
        if self.brokers.is_tls {
            settings.push(("ssl.ca.pem", secrets.authorities.clone()));
        }
        if let Some((certificate, key)) = &secrets.own {
            settings.extend([("ssl.certificate.pem", certificate.clone()), ("ssl.key.pem", key.clone())]);
        }
        if let Some((sasl, password)) = self.sasl.as_ref().zip(secrets.password.as_ref()) {
            settings.extend([
                ("sasl.mechanism", sasl.mechanism.told().to_owned()),
                ("sasl.username", sasl.user.clone()),
                ("sasl.password", password.clone()),
            ]);
        }
        settings
    }
}

/// How long librdkafka tries, of the time of an attempt: the answer is to come before nobody waits for it any more.
fn message_time(timeout: Duration) -> Duration {
    (timeout / 10 * 9).max(2 * LINGER)
}

fn pem(file: &Path) -> Result<String, SecretError> {
    let bytes = small_file(file, MAX_PEM_BYTES)?;
    String::from_utf8(bytes).map_err(|_| SecretError::NoCertificate(file.to_owned()))
}

fn password(file: &Path) -> Result<String, SecretError> {
    let bytes = small_file(file, MAX_PASSWORD_BYTES)?;
    let password = String::from_utf8(bytes).ok().map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    let is_text = |text: &String| !text.is_empty() && !text.contains(char::is_control);
    password.filter(is_text).ok_or_else(|| SecretError::HeaderValue(file.to_owned()))
}

/// The same that other sinks believe, as OpenSSL reads them (RFC 7468).
fn authorities_of_this_machine() -> String {
    let mut pem = Vec::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        pem.extend_from_slice(b"-----BEGIN CERTIFICATE-----\n");
        let mut text = Vec::new();
        push_base64(&mut text, &certificate);
        for line in text.chunks(64) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(b"-----END CERTIFICATE-----\n");
    }
    String::from_utf8(pem).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_ports() {
        for (text, is_tls, hosts) in [
            ("kafka://a", false, &["a:9092"][..]),
            ("kafka://a:1,b:2/", false, &["a:1", "b:2"]),
            ("KAFKA+tls://[::1]:9094, b", true, &["[::1]:9094", "b:9092"]),
        ] {
            let brokers = Brokers::parse(text).unwrap();
            assert_eq!(
                (brokers.is_tls, &brokers.hosts.iter().map(String::as_str).collect::<Vec<_>>()[..]),
                (is_tls, hosts)
            );
        }
        for text in
            ["a:9092", "http://a", "kafka://", "kafka://a,,b", "kafka://u:p@a", "kafka://a:x", "kafka://a/b"]
        {
            assert_eq!(Brokers::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_password_has_its_limits() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |content: &[u8]| {
            std::fs::write(file.path(), content).unwrap();
            password(file.path())
        };
        assert_eq!(read(b"p ss\xc3\xbc\n").unwrap(), "p ss\u{fc}");
        assert!(read(&[b'p'; MAX_PASSWORD_BYTES]).is_ok());
        assert!(matches!(read(&[b'p'; MAX_PASSWORD_BYTES + 1]), Err(SecretError::TooLong { .. })));
        for wrong in [&b""[..], b"\n", b"a\0b", b"\xff"] {
            assert!(matches!(read(wrong), Err(SecretError::HeaderValue(_))));
        }
    }

    #[test]
    fn librdkafka_gives_up_before_the_attempt_does() {
        for milliseconds in [100, 1000, 30_000] {
            let timeout = Duration::from_millis(milliseconds);
            assert!(message_time(timeout) < timeout && message_time(timeout) > LINGER);
        }
    }
}
