//! Records to a table of PostgreSQL by COPY, each with an id of its own: what is sent twice is stored once.
//!
//! A batch is one COPY into the table, which stores all of it or nothing. Only where it meets an id that is there already, of an
//! attempt whose answer was lost, it goes by way of a temporary table. One session a node: a server has a hundred for all.

mod row;
mod session;

use std::{cell::RefCell, collections::HashSet, sync::Arc, time::Instant};

use http::Uri;
use rustls::pki_types::ServerName;
use tokio_postgres::{Error, error::SqlState};
use tokio_rustls::TlsConnector;

pub use self::row::Encoder;
use self::session::{Session, is_of_a_row, trouble};
use super::{
    elasticsearch::cut,
    http_client::{MAX_IDLE, Secret},
    own::OwnConnections,
    probe::Probe,
};
use crate::{
    delivery::{Answer, Parcel, Refusal, RefusalKind, Target, Trouble, Verdict},
    secrets::{SecretError, Watched, tls},
};

/// Where a server listens if its URL does not say.
const DEFAULT_PORT: u16 = 5432;
/// Bytes of a name in PostgreSQL at most (NAMEDATALEN, less the end).
pub const MAX_NAME_BYTES: usize = 63;

/// Where a database is: `postgres://[user@]host[:port]/database`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Who we are, if it says so.
    pub user: Option<String>,
    host: String,
    port: u16,
    /// Its name.
    pub database: String,
}

impl Url {
    /// Reads `text`; absent if it is no such URL, or has a password or options.
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        if !matches!(uri.scheme_str()?, "postgres" | "postgresql") || uri.query().is_some() {
            return None;
        }
        let authority = uri.authority()?;
        let (user, place) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority.as_str()),
        };
        let is_plain = |text: &str| !text.is_empty() && !text.contains([':', '@', '%', '/']);
        let database = uri.path().strip_prefix('/').filter(|database| is_plain(database))?;
        let host = authority.host();
        let has_port = place.len() != host.len();
        if user.is_some_and(|user| !is_plain(user)) || has_port && authority.port_u16().is_none() {
            return None;
        }
        Some(Self {
            user: user.map(str::to_owned),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(DEFAULT_PORT),
            database: database.to_owned(),
        })
    }

    /// A name or an address.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// A table's name, with its schema's if that is not the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table(Vec<String>);

impl Table {
    /// Reads `table` or `schema.table`: small letters, digits and `_`, as they are written without quotes.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<_> = text.split('.').map(str::to_owned).collect();
        let is_name = |name: &String| {
            let is_first = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
            name.bytes().next().is_some_and(is_first)
                && name.bytes().all(|byte| is_first(byte) || byte.is_ascii_digit())
                && name.len() <= MAX_NAME_BYTES
        };
        (parts.len() <= 2 && parts.iter().all(is_name)).then_some(Self(parts))
    }

    fn quoted(&self) -> String {
        let quoted: Vec<_> = self.0.iter().map(|name| format!("\"{name}\"")).collect();
        quoted.join(".")
    }

    /// Of the index of its times, which is in its schema.
    fn index(&self) -> String {
        const END: &str = "_time";
        let name: String = self.0.last().into_iter().flat_map(|name| name.chars()).collect();
        format!("\"{}{END}\"", name.get(..MAX_NAME_BYTES - END.len()).unwrap_or(&name))
    }
}

/// Where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the database is.
    pub url: Url,
    /// Who we are.
    pub user: String,
    /// What only we know, if the server asks.
    pub password: Option<Secret>,
    /// Where rows go.
    pub table: Table,
    /// It is made if it is not there.
    pub create: bool,
    /// Whom to believe, and whose certificate the server should have; without it in the clear.
    pub tls: Option<(tls::Client, ServerName<'static>)>,
}

impl Config {
    /// Reads the files, to see whether they can be used; each that cannot be.
    pub fn check_files(&self) -> Vec<SecretError> {
        let tls = self.tls.as_ref().and_then(|(client, _)| client.connector().err());
        let password = self.password.as_ref().and_then(|password| password.read().err());
        tls.into_iter().chain(password).collect()
    }

    fn create_table(&self) -> String {
        row::create(&self.table.quoted(), &self.table.index())
    }

    fn copy_into(&self, table: &str) -> String {
        format!("COPY {table} ({}) FROM STDIN", row::names())
    }
}

/// The table.
pub(super) struct Postgres {
    config: Config,
    connector: Option<Watched<TlsConnector>>,
    own: Arc<OwnConnections>,
    /// The session, when nobody uses it, and when it was used last.
    idle: RefCell<Option<(Session, Instant)>>,
}

impl Target for Postgres {
    async fn send(&self, parcel: &Parcel) -> Answer {
        self.store(parcel).await.unwrap_or_else(Answer::Later)
    }
}

impl Probe for Postgres {
    /// A table that is to be made is made now.
    async fn probe(&self) -> Result<String, Trouble> {
        let connector = self.connector.as_ref().map(Watched::current);
        Session::open(&self.config, connector, &self.own).await?;
        Ok(format!("lets us in, and has the table {}", self.config.table.quoted()))
    }
}

impl Postgres {
    /// Reads the files, and connects when there is something to send.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(super) fn new(config: Config, own: Arc<OwnConnections>) -> Result<Self, SecretError> {
        if let Some(password) = &config.password {
            password.read()?;
        }
        let connector = config.tls.clone().map(|(client, _)| {
            Watched::new(client.files(), move |_: &[std::path::PathBuf]| client.connector())
        });
        Ok(Self { connector: connector.transpose()?, config, own, idle: RefCell::default() })
    }

    async fn store(&self, parcel: &Parcel) -> Result<Answer, Trouble> {
        let idle = self.idle.borrow_mut().take();
        let idle = idle.filter(|(session, used)| !session.is_closed() && used.elapsed() < MAX_IDLE);
        if let Some((session, _)) = idle {
            match self.store_by(session, parcel).await {
                // The server closed what was idle, which is no trouble.
                Err(error) if error.as_db_error().is_none() => {}
                answer => return answer.map_err(|error| trouble(&error)),
            }
        }
        let connector = self.connector.as_ref().map(Watched::current);
        let session = Session::open(&self.config, connector, &self.own).await?;
        self.store_by(session, parcel).await.map_err(|error| trouble(&error))
    }

    /// Keeps the session, unless what went wrong is none of the rows'.
    async fn store_by(&self, session: Session, parcel: &Parcel) -> Result<Answer, Error> {
        let answer = match session.copy(parcel.bytes()).await {
            Ok(()) => Answer::Delivered,
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                match session.copy_new(&self.config, parcel.bytes()).await {
                    Ok(stored) => Answer::Judged(judge(parcel, &stored)),
                    Err(error) if is_of_a_row(&error) => {
                        session.roll_back().await?;
                        refuse(parcel, &error)
                    }
                    Err(error) => return Err(error),
                }
            }
            Err(error) if is_of_a_row(&error) => refuse(parcel, &error),
            Err(error) => return Err(error),
        };
        *self.idle.borrow_mut() = Some((session, Instant::now()));
        Ok(answer)
    }
}

/// Rows whose ids were stored, and those that were there already.
fn judge(parcel: &Parcel, stored: &[String]) -> Vec<Verdict> {
    let stored: HashSet<String> = stored.iter().map(|id| id.replace('-', "")).collect();
    let id =
        |item: &[u8]| item.split(|byte| *byte == b'\t').next().map(String::from_utf8_lossy).map(Into::into);
    let verdict = |id: Option<String>| match id {
        Some(id) if stored.contains(&id) => Verdict::Delivered,
        Some(_) | None => Verdict::Duplicate,
    };
    parcel.items().map(|item| verdict(id(item))).collect()
}

/// One row of several is wrong, of which none was stored: halves tell which.
fn refuse(parcel: &Parcel, error: &Error) -> Answer {
    if parcel.len() > 1 {
        return Answer::TooLarge;
    }
    let Trouble { detail, .. } = trouble(error);
    Answer::Never(Refusal::new(RefusalKind::Rejected, cut(&detail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: Option<(Option<&str>, &str, u16, &str)>| {
            let url = Url::parse(text);
            let parts = url.as_ref().map(|url| (url.user.as_deref(), url.host(), url.port, &*url.database));
            assert_eq!(parts, expected, "{text}");
        };
        check("postgres://db/records", Some((None, "db", DEFAULT_PORT, "records")));
        check("postgresql://u@[::1]:5433/records", Some((Some("u"), "::1", 5433, "records")));
        check("postgres://u:p@db/records", None);
        check("postgres://db/records?sslmode=disable", None);
        check("postgres://db:x/records", None);
        check("postgres://db:/records", None);
        check("postgres://db/a/b", None);
        check("postgres://db/", None);
        check("http://db/records", None);
        check("db", None);
    }

    #[test]
    fn names_of_tables() {
        let most = "a".repeat(MAX_NAME_BYTES);
        for (text, expected) in [
            ("records", Some("\"records\"")),
            ("logs.records_2", Some("\"logs\".\"records_2\"")),
            ("_", Some("\"_\"")),
            (&*most, Some(&*format!("\"{most}\""))),
            (&*format!("{most}a"), None),
            ("Records", None),
            ("2records", None),
            ("a.b.c", None),
            ("a\"; drop", None),
            ("a.", None),
            ("", None),
        ] {
            assert_eq!(Table::parse(text).map(|table| table.quoted()).as_deref(), expected, "{text}");
        }
        assert_eq!(Table::parse("logs.a").unwrap().index(), "\"a_time\"");
        assert_eq!(Table::parse(&most).unwrap().index().len(), MAX_NAME_BYTES + 2);
    }

    #[test]
    fn rows_that_were_there_are_told_from_new_ones() {
        let rows = ["00000000000000010000000000000001\ta\n", "00000000000000010000000000000002\tb\n"];
        let ends = vec![rows[0].len() as u32, (rows[0].len() + rows[1].len()) as u32];
        let parcel = Parcel::new(rows.concat().into_bytes(), ends);
        let stored = ["00000000-0000-0001-0000-000000000002".to_owned()];
        assert_eq!(judge(&parcel, &stored), [Verdict::Duplicate, Verdict::Delivered]);
    }
}
