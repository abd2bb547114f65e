//! Keys of `type: postgres`.

use rustls::pki_types::ServerName;

use super::{DEFAULT_BATCH_RECORDS, Settings, SinkKey as Key, SinkType, Wrong, common, web};
use crate::{
    config::keys::put,
    sinks::{
        TargetConfig,
        http_client::Secret,
        postgres::{self, Table, Url},
    },
};

pub(super) static TYPE: SinkType = SinkType {
    word: "postgres",
    sentence: "A table of PostgreSQL, by COPY: rows with ids of their own, so that what is sent twice is stored once. One session.",
    schemes: &["postgres", "postgresql"],
    keys: &[KEYS, web::USER, web::TLS, common::LINES, common::KEYS],
    keeps_order: false,
    batch_records: DEFAULT_BATCH_RECORDS,
    build,
};

/// Where rows go that say nothing else.
const DEFAULT_TABLE: &str = "pod2pod_records";

/// `postgres` as written.
#[derive(Clone, Debug, Default)]
pub struct Postgres {
    url: Option<Url>,
    table: Option<Table>,
    create: bool,
    is_in_the_clear: bool,
}

static KEYS: &[Key] = &[
    Key {
        path: "url",
        allowed: "a postgres://[user@]host[:port]/database URL",
        default: "",
        sentence: "Where the database is.",
        set: |sink, given| put(&mut sink.postgres.url, Some(Some(Url::parse(given.text()?)?))),
    },
    Key {
        path: "table",
        allowed: "a name such as records, logs.records: small letters, digits and _",
        default: DEFAULT_TABLE,
        sentence: "Where rows go.",
        set: |sink, given| {
            let text = given.text()?;
            let table = Table::parse(text)?;
            put(&mut sink.postgres.table, Some((text != DEFAULT_TABLE).then_some(table)))
        },
    },
    Key {
        path: "create_table",
        allowed: "on, off",
        default: "off",
        sentence: "Makes the table, and an index of its times, if it is not there.",
        set: |sink, given| put(&mut sink.postgres.create, given.switch()),
    },
    Key {
        path: "tls.mode",
        allowed: "verify-full, disable",
        default: "verify-full",
        sentence: "TLS with a certificate of the host's name from an authority that is believed, or none at all.",
        set: |sink, given| {
            sink.postgres.is_in_the_clear = match given.text()? {
                "verify-full" => false,
                "disable" => true,
                _ => return None,
            };
            Some(())
        },
    },
];

fn build(sink: &Settings, wrong: &mut Vec<Wrong>) -> Option<TargetConfig> {
    let Postgres { url, table, create, is_in_the_clear } = sink.postgres.clone();
    let Some(url) = url else {
        wrong.push(("url", "it is missing: say where the database is".to_owned()));
        return None;
    };
    sink.web.check(!is_in_the_clear, wrong);
    let user = match (&url.user, &sink.web.user) {
        (Some(user), None) | (None, Some(user)) => user.clone(),
        (None, None) => {
            wrong.push(("user", "it is missing: say who we are".to_owned()));
            return None;
        }
        (Some(_), Some(_)) => {
            wrong.push(("user", "its url says it too".to_owned()));
            return None;
        }
    };
    let name = match &sink.web.server_name {
        Some(name) => Some(name.clone()),
        None => ServerName::try_from(url.host().to_owned()).ok(),
    };
    let tls = match name {
        _ if is_in_the_clear => None,
        Some(name) => Some((sink.web.tls_client(), name)),
        None => {
            wrong.push(("tls.server_name", "its url's host is no name that a certificate has".to_owned()));
            None
        }
    };
    let password = sink.web.password_file.clone().map(Secret::File);
    let table = table.or_else(|| Table::parse(DEFAULT_TABLE))?;
    Some(TargetConfig::Postgres(Box::new(postgres::Config { url, user, password, table, create, tls })))
}
