//! Selection: exchanges of which pods are wanted, by the names that its ends have in Kubernetes. Evaluated once both are known.
//!
//! * Wanted is what has an end that fits every list that is not empty; refused is what has an end that fits any ignoring one.
//! * Of an end that nobody knows nothing is said: it fits no list.

use super::{NamePattern, selector::Selector};
use crate::kubernetes::identity::{Identity, WorkloadKind};

/// Annotation by which a pod asks not to be observed: `"false"`.
pub const OBSERVE: &str = "pod2pod.io/observe";

/// A name or glob in a namespace or in any: `web-*`, `shop/web-*`.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectPattern {
    namespace: Option<NamePattern>,
    kind: Option<WorkloadKind>,
    name: NamePattern,
}

/// Reads a name of Kubernetes or a glob of such; absent if no name could be meant (RFC 1123 labels and subdomains).
pub fn name(text: &str) -> Option<NamePattern> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.*?[]{},!\\".contains(c);
    text.chars().all(is_part).then(|| NamePattern::parse(text))?
}

impl ObjectPattern {
    /// Reads `[namespace/]name`; absent if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, of_name) = match text.split_once('/') {
            Some((namespace, of_name)) => (Some(name(namespace)?), of_name),
            None => (None, text),
        };
        Some(Self { namespace, kind: None, name: name(of_name)? })
    }

    /// Reads `[kind:][namespace/]name`; absent if it is none.
    pub fn parse_workload(text: &str) -> Option<Self> {
        let Some((word, rest)) = text.split_once(':') else { return Self::parse(text) };
        let kind = WorkloadKind::ALL.iter().find(|kind| kind.as_str() == word)?;
        Some(Self { kind: Some(*kind), ..Self::parse(rest)? })
    }

    fn matches(&self, namespace: &str, name: &str) -> bool {
        self.namespace.as_ref().is_none_or(|pattern| pattern.matches(namespace)) && self.name.matches(name)
    }
}

/// What an end may have to fit; a list without entries asks nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ends {
    /// Namespace of the pod, or of the Service.
    pub namespaces: Vec<NamePattern>,
    /// Pod.
    pub pods: Vec<ObjectPattern>,
    /// What has made the pod.
    pub workloads: Vec<ObjectPattern>,
    /// Container.
    pub containers: Vec<NamePattern>,
    /// Labels of the pod.
    pub labels: Option<Selector>,
}

impl Ends {
    fn fits_all(&self, end: &Identity) -> bool {
        [self.namespace(end), self.pod(end), self.workload(end), self.container(end), self.label(end)]
            .into_iter()
            .all(|fits| fits != Some(false))
    }

    fn fits_any(&self, end: &Identity) -> bool {
        [self.namespace(end), self.pod(end), self.workload(end), self.container(end), self.label(end)]
            .contains(&Some(true))
    }

    fn namespace(&self, end: &Identity) -> Option<bool> {
        let of_service = || end.service.as_ref().map(|service| &service.namespace);
        let namespace = end.pod.as_ref().map(|pod| &pod.namespace).or_else(of_service);
        asked(&self.namespaces, |pattern| namespace.is_some_and(|namespace| pattern.matches(namespace)))
    }

    fn pod(&self, end: &Identity) -> Option<bool> {
        let pod = end.pod.as_ref();
        asked(&self.pods, |pattern| pod.is_some_and(|pod| pattern.matches(&pod.namespace, &pod.name)))
    }

    fn workload(&self, end: &Identity) -> Option<bool> {
        asked(&self.workloads, |pattern| {
            end.pod.as_ref().is_some_and(|pod| {
                pod.workload.as_ref().is_some_and(|workload| {
                    pattern.kind.is_none_or(|kind| kind == workload.kind)
                        && pattern.matches(&pod.namespace, &workload.name)
                })
            })
        })
    }

    fn container(&self, end: &Identity) -> Option<bool> {
        let container = end.container.as_deref();
        asked(&self.containers, |pattern| container.is_some_and(|name| pattern.matches(name)))
    }

    fn label(&self, end: &Identity) -> Option<bool> {
        let selector = self.labels.as_ref()?;
        Some(end.pod.as_ref().is_some_and(|pod| selector.matches(&pod.labels)))
    }
}

fn asked<T>(list: &[T], fits: impl Fn(&T) -> bool) -> Option<bool> {
    (!list.is_empty()).then(|| list.iter().any(fits))
}

/// Which exchanges are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selection {
    /// An end must fit all of these.
    pub only: Ends,
    /// No end may fit any of these.
    pub ignore: Ends,
    /// Pods may ask not to be observed.
    pub obeys_annotation: bool,
}

impl Selection {
    /// Whether nothing is ever refused.
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an exchange between these is wanted; an end that is not known is absent.
    pub fn wants<'a>(&self, mut ends: impl Iterator<Item = &'a Identity> + Clone) -> bool {
        let asks_nothing = self.only == Ends::default();
        !self.leaves_out(ends.clone()) && (asks_nothing || ends.any(|end| self.only.fits_all(end)))
    }

    /// Whether one of these has it left out, whoever the other end is.
    pub fn leaves_out<'a>(&self, mut ends: impl Iterator<Item = &'a Identity>) -> bool {
        let asks_not = |end: &Identity| {
            self.obeys_annotation
                && end.pod.as_ref().is_some_and(|pod| {
                    pod.annotations.iter().any(|(key, value)| &**key == OBSERVE && &**value == "false")
                })
        };
        ends.any(|end| self.ignore.fits_any(end) || asks_not(end))
    }

    /// Keys of labels that are asked for.
    pub fn label_keys(&self) -> impl Iterator<Item = &str> {
        [&self.only.labels, &self.ignore.labels].into_iter().flatten().flat_map(Selector::keys)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kubernetes::{
        cgroup::PodUid,
        identity::{Pod, Workload},
    };

    fn pod(namespace: &str, deployment: &str, observe: Option<&str>) -> Identity {
        let annotations: Vec<(Arc<str>, Arc<str>)> =
            observe.map(|value| (OBSERVE.into(), value.into())).into_iter().collect();
        let pod = Pod {
            namespace: namespace.into(),
            name: format!("{deployment}-5c-x").into(),
            uid: PodUid::parse(&"0".repeat(32)).unwrap(),
            node: None,
            zone: None,
            workload: Some(Workload { kind: WorkloadKind::Deployment, name: deployment.into() }),
            labels: [("app".into(), deployment.into())].into(),
            annotations: annotations.into(),
        };
        Identity { pod: Some(Arc::new(pod)), container: Some("main".into()), ..Identity::default() }
    }

    fn names(list: &[&str]) -> Vec<NamePattern> {
        list.iter().map(|text| NamePattern::parse(text).unwrap()).collect()
    }

    fn objects(list: &[&str]) -> Vec<ObjectPattern> {
        list.iter().map(|text| ObjectPattern::parse_workload(text).unwrap()).collect()
    }

    #[test]
    fn an_end_fits_all_lists_and_none_of_the_ignoring_ones() {
        let (web, cart) = (pod("shop", "web", None), pod("shop", "cart", None));
        let dns = pod("kube-system", "coredns", None);
        let only = |only: Ends| Selection { only, ..Selection::default() };
        let ignore = |ignore: Ends| Selection { ignore, ..Selection::default() };
        let namespaces = |list: &[&str]| Ends { namespaces: names(list), ..Ends::default() };
        let pods = |list: &[&str]| Ends { pods: objects(list), ..Ends::default() };
        let workloads = |list: &[&str]| Ends { workloads: objects(list), ..Ends::default() };
        let containers = |list: &[&str]| Ends { containers: names(list), ..Ends::default() };
        let labels = |text: &str| Ends { labels: Some(Selector::parse(text).unwrap()), ..Ends::default() };
        for (selection, shop, outside, lookup, unknown) in [
            (Selection::default(), true, true, true, true),
            (only(namespaces(&["shop"])), true, true, true, false),
            (only(namespaces(&["kube-*"])), false, false, true, false),
            (ignore(namespaces(&["kube-*"])), true, true, false, true),
            (only(pods(&["web-*"])), true, true, true, false),
            (only(pods(&["other/web-*"])), false, false, false, false),
            (only(workloads(&["cart"])), true, false, false, false),
            (only(workloads(&["deployment:shop/cart"])), true, false, false, false),
            (only(workloads(&["job:shop/cart"])), false, false, false, false),
            (ignore(workloads(&["cart"])), false, true, true, true),
            (only(containers(&["main"])), true, true, true, false),
            (only(containers(&["istio-proxy"])), false, false, false, false),
            (only(labels("app in (cart, coredns)")), true, false, true, false),
            (ignore(labels("app=web")), false, false, false, true),
            // On one end.
            (
                only(Ends { namespaces: names(&["kube-system"]), ..labels("app=web") }),
                false,
                false,
                false,
                false,
            ),
            (only(Ends { namespaces: names(&["shop"]), ..labels("app=web") }), true, true, true, false),
        ] {
            for (ends, expected) in [
                (vec![&web, &cart], shop),
                (vec![&web, &Identity::default()], outside),
                (vec![&web, &dns], lookup),
                (vec![], unknown),
            ] {
                assert_eq!(selection.wants(ends.iter().copied()), expected, "{selection:?} {ends:?}");
            }
        }
    }

    #[test]
    fn a_pod_may_ask_not_to_be_observed_where_that_is_allowed() {
        let other = pod("shop", "web", None);
        for (obeys_annotation, value, expected) in [
            (true, Some("false"), false),
            (true, Some("true"), true),
            (true, None, true),
            (false, Some("false"), true),
        ] {
            let selection = Selection { obeys_annotation, ..Selection::default() };
            let asking = pod("shop", "cart", value);
            assert_eq!(selection.wants([&asking, &other].into_iter()), expected, "{value:?}");
            assert_eq!(selection.wants([&other, &asking].into_iter()), expected, "{value:?}");
        }
    }

    #[test]
    fn patterns_are_read_whole_or_not_at_all() {
        for text in ["", "/", "shop/", "/web", "shop/a/b", "pod:x", "deployment:", "[", "Web", "a b", "ä"] {
            assert!(ObjectPattern::parse_workload(text).is_none(), "{text}");
        }
        for text in ["web", "sh?p/w[ab]*", "{a,b}.c-1"] {
            assert!(ObjectPattern::parse(text).is_some(), "{text}");
        }
        assert!(ObjectPattern::parse("deployment:web").is_none());
    }
}
