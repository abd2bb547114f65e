//! The effective settings as a page: every key with its value and where that was said, without secrets.

use serde_json::{Map, Value, json};

use super::{Config, keys::keys, targets};
use crate::enrich::redact::cover_url;

/// What secrets in a value are overwritten with.
const COVER: u8 = b'*';

/// A value that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Its key.
    pub key: String,
    /// As written; of a list, its items separated by commas.
    pub text: String,
    /// Where.
    pub source: String,
}

/// All keys in the order of the README, each with its value and its source, as one JSON object; of sinks those that were said.
pub fn page(config: &Config) -> String {
    let mut page = Map::new();
    for key in keys() {
        // Later sources win.
        let said = config.said.iter().rfind(|said| said.key == key.path);
        let (value, source) =
            said.map_or((key.default, "default"), |said| (said.text.as_str(), said.source.as_str()));
        page.insert(
            key.path.to_owned(),
            json!({ "value": without_secrets(key.path, value), "from": source }),
        );
    }
    for said in config.said.iter().filter(|said| targets::name_and_key(&said.key).is_some()) {
        let value = without_secrets(&said.key, &said.text);
        page.insert(said.key.clone(), json!({ "value": value, "from": said.source }));
    }
    format!("{:#}\n", Value::Object(page))
}

/// The key of headers, whose values are told to nobody: what is no secret may look like one, and the other way round.
const HEADERS: &str = ".headers";

/// A value as it may be told: a URL may hold credentials, as headers may.
pub(super) fn without_secrets(key: &str, value: &str) -> String {
    if key.ends_with(HEADERS) && !value.is_empty() {
        let names = value.split(',').map(|item| item.split_once(':').map_or("", |(name, _)| name.trim()));
        return names.map(|name| format!("{name}: ***")).collect::<Vec<_>>().join(", ");
    }
    if !value.contains("://") {
        return value.to_owned();
    }
    let mut bytes = value.as_bytes().to_vec();
    cover_url(&mut bytes, COVER);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{load, value::Given};

    #[test]
    fn every_key_has_its_value_and_where_it_was_said() {
        let sources = load::Sources {
            environment: vec![("POD2POD_SAMPLING_RATE".to_owned(), "0.5".to_owned())],
            flags: vec![("filter.ports", Given::list(vec!["80".to_owned(), "443".to_owned()]), "--port")],
            settings: vec![
                "sampling.rate=0.25".to_owned(),
                "sinks.web.url=http://collector/in?token=hunter2&x=1".to_owned(),
                "sinks.web.headers=Authorization: Bearer hunter2, X-Tenant: shop".to_owned(),
            ],
            ..load::Sources::default()
        };
        let page: Value = serde_json::from_str(&page(&load::load(&sources).unwrap())).unwrap();
        assert_eq!(page.as_object().unwrap().len(), keys().count() + 2);
        for (key, value, from) in [
            ("sampling.rate", "0.25", "--set"),
            ("filter.ports", "80, 443", "--port"),
            ("http.timeout", "10s", "default"),
            ("sinks.web.url", "http://collector/in?token=*******&x=1", "--set"),
            ("sinks.web.headers", "Authorization: ***, X-Tenant: ***", "--set"),
        ] {
            assert_eq!((&page[key]["value"], &page[key]["from"]), (&value.into(), &from.into()), "{key}");
        }
        assert!(!page.to_string().contains("hunter2"));
    }

    #[test]
    fn a_mistake_tells_no_secret() {
        for (key, value) in [
            ("sinks.web.headers", "Authorization Bearer hunter2"),
            ("sinks.web.url", "http://u:hunter2@collector/"),
        ] {
            let settings = vec!["sinks.web.type=http".to_owned(), format!("{key}={value}")];
            let sources = load::Sources { settings, ..Default::default() };
            let told = load::load(&sources).unwrap_err().iter().map(ToString::to_string).collect::<String>();
            assert!(told.contains(key) && !told.contains("hunter2"), "{told}");
        }
    }
}
