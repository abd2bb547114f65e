//! Keys of the section `kubernetes`: how pods get their names.

use super::{
    Key, MODE, all, put,
    records::{BODY, body, headers},
};
use crate::{
    enrich::redact,
    kubernetes::cluster::{MAX_NAME, Network},
};

/// Longest key of a label or an annotation: a domain, a slash, a name of 63.
const MAX_KEY: usize = MAX_NAME + 1 + 63;

pub(super) static KEYS: &[Key] = &[
    Key {
        path: "kubernetes.mode",
        allowed: MODE,
        default: "auto",
        sentence: "Asks the API server which pods, Services and nodes there are; auto is in a cluster, or with a kubeconfig. Agent only, as the whole section.",
        set: |config, given| put(&mut config.kubernetes.mode, given.mode()),
    },
    Key {
        path: "kubernetes.kubeconfig",
        allowed: "a path",
        default: "",
        sentence: "Where the API server is and who we are; without it the files of `KUBECONFIG`, else what a pod is given.",
        set: |config, given| put(&mut config.kubernetes.kubeconfig, given.path().map(Some)),
    },
    Key {
        path: "kubernetes.node",
        allowed: "a node's name",
        default: "",
        sentence: "Our own node; without it `NODE_NAME`, else the host's name.",
        set: |config, given| {
            let is_name =
                |name: &&str| !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(is_plain);
            config.kubernetes.node = Some(given.text().filter(is_name)?.to_owned());
            Some(())
        },
    },
    Key {
        path: "kubernetes.labels",
        allowed: KEYS_ALLOWED,
        default: "",
        sentence: "Labels of pods that are kept.",
        set: |config, given| put(&mut config.kubernetes.labels, all(given, key)),
    },
    Key {
        path: "kubernetes.annotations",
        allowed: KEYS_ALLOWED,
        default: "",
        sentence: "Annotations of this node's pods that are kept.",
        set: |config, given| put(&mut config.kubernetes.annotations, all(given, key)),
    },
    Key {
        path: "kubernetes.pods_may",
        allowed: "a list of observe, sample, headers and body-bytes",
        default: "",
        sentence: "What pods of this node may ask for by annotations: `pod2pod.io/observe: \"false\"` leaves their exchanges out, `pod2pod.io/sample: \"0.1\"` keeps that share of ordinary ones, `pod2pod.io/headers` and `pod2pod.io/body-bytes` say what records made at their sockets have.",
        set: |config, given| {
            let given = given.items();
            let is_known =
                |word: &String| ["observe", "sample", "headers", "body-bytes"].contains(&word.as_str());
            let has = |word: &str| given.iter().any(|given| given == word);
            let rules = &mut config.names.rules;
            (rules.sample, rules.headers, rules.body_bytes) =
                (has("sample"), has("headers"), has("body-bytes"));
            config.names.selection.obeys_annotation = has("observe");
            given.iter().all(is_known).then_some(())
        },
    },
    Key {
        path: "kubernetes.pods_headers",
        allowed: "a list of header names, none of a credential",
        default: "",
        sentence: "Headers that pods may ask for beside those of `http.request_headers` and `http.response_headers`, if they may ask for headers.",
        set: |config, given| {
            headers(&mut config.names.rules.more_headers, given)?;
            let is_secret = |name: &String| redact::is_secret_header(name.as_bytes());
            (!config.names.rules.more_headers.iter().any(is_secret)).then_some(())
        },
    },
    Key {
        path: "kubernetes.pods_body_bytes",
        allowed: BODY,
        default: "0",
        sentence: "First bytes of each body that pods may ask for at most, if that is more than `http.body_bytes` and they may ask for body-bytes.",
        set: |config, given| put(&mut config.names.rules.more_body_bytes, body(given)),
    },
    Key {
        path: "kubernetes.pod_networks",
        allowed: "a list of networks such as 10.244.0.0/16, fd00::/48",
        default: "",
        sentence: "Where pods have their addresses, beside what nodes say and around pods that are known: only for these late news are waited for.",
        set: |config, given| put(&mut config.kubernetes.pod_networks, all(given, Network::parse)),
    },
];

const KEYS_ALLOWED: &str = "a list of keys such as app, app.kubernetes.io/name";

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

fn key(text: &str) -> Option<String> {
    let is_key = |byte| is_plain(byte) || byte == b'/';
    (!text.is_empty() && text.len() <= MAX_KEY && text.bytes().all(is_key)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::named;

    #[test]
    fn what_pods_may_ask_for_is_said_by_words_and_bounds() {
        let set = |path: &str, text: &str| {
            let mut config = crate::config::Config::default();
            let key = KEYS.iter().find(|key| key.path == path).unwrap();
            (key.set)(&mut config, &crate::config::value::Given::one(text)).map(|()| config.names)
        };
        let names = set("kubernetes.pods_may", "observe, body-bytes").unwrap();
        let named::Rules { sample, headers, body_bytes, .. } = names.rules;
        let obeyed = (names.selection.obeys_annotation, sample, headers, body_bytes);
        assert_eq!(obeyed, (true, false, false, true));
        assert!(set("kubernetes.pods_may", "everything").is_none());
        let headers = set("kubernetes.pods_headers", "X-Request-Id, x-b").unwrap();
        assert_eq!(headers.rules.more_headers, ["x-request-id", "x-b"]);
        for secret in ["Authorization", "x-b, cookie", "set-cookie", "X-Api-Key", "x-vault-token"] {
            assert!(set("kubernetes.pods_headers", secret).is_none(), "{secret}");
        }
        assert_eq!(set("kubernetes.pods_body_bytes", "64KiB").unwrap().rules.more_body_bytes, 64 << 10);
        assert!(set("kubernetes.pods_body_bytes", "65KiB").is_none());
    }

    #[test]
    fn keys_have_a_length() {
        assert!(key("app.kubernetes.io/name").is_some());
        assert!(key(&"a".repeat(MAX_KEY)).is_some());
        assert!(key(&"a".repeat(MAX_KEY + 1)).is_none());
        assert!(key("a=b").is_none());
    }
}
