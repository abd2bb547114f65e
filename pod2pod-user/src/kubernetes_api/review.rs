//! What the API server would let us do, asked of itself (SelfSubjectAccessReview): for `pod2pod check`. Changes nothing there.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::Node,
};
use kube::{Api, Client, api::PostParams};

use super::{
    Config, Mode,
    access::{Access, Place},
    trouble::{lost, rule},
};
use crate::{finding::Finding, kubernetes::objects::Kind, sinks::OwnConnections};

/// A server that has said nothing by then is not there.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What each kind is asked for.
const VERBS: [&str; 2] = ["list", "watch"];
const API: &str = "kubernetes api";
const NODE: &str = "node name";
const UNNAMED: &str = "pods have no names";

/// Which kinds may be listed and watched, and whether our own node is known there.
pub fn check(config: &Config) -> Vec<Finding> {
    if config.mode == Mode::Off {
        return vec![Finding::ok(API, "not asked for")];
    }
    let Some(place) = Place::find(config.kubeconfig.as_deref()) else {
        return vec![unknown(config.mode)];
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![silent(&error.to_string())],
    };
    runtime.block_on(async {
        let access = Access::new(place, Arc::new(OwnConnections::default()));
        match access.client().await {
            Ok(client) => ask(client, config).await,
            Err(trouble) => vec![silent(&trouble.detail)],
        }
    })
}

/// Nothing says where a server is.
fn unknown(mode: Mode) -> Finding {
    if mode != Mode::On {
        return Finding::ok(API, "no API server is known; pods have no names");
    }
    Finding::missing(API, "no API server is known")
        .with(
            "a pod's service account, or a kubeconfig",
            UNNAMED,
            "mount the service account's token, or name a file in kubernetes.kubeconfig",
        )
        .limits()
}

fn silent(detail: &str) -> Finding {
    Finding::missing(API, detail)
        .with(
            "an API server that answers",
            UNNAMED,
            "see whether this node reaches it, its certificate, and the token",
        )
        .limits()
}

async fn ask(client: Client, config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    for kind in Kind::ALL {
        for verb in VERBS {
            match tokio::time::timeout(TIMEOUT, is_allowed(&client, kind, verb)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => {
                    found.push(refused(kind, verb));
                    break;
                }
                Ok(Err(error)) => return vec![silent(&error.to_string())],
                Err(_) => return vec![silent("no answer in time")],
            }
        }
    }
    if found.is_empty() {
        let count = Kind::ALL.len();
        found.push(Finding::ok(API, format!("all {count} kinds may be listed and watched")));
    }
    found.extend(own_node(client, config).await);
    found
}

async fn is_allowed(client: &Client, kind: Kind, verb: &str) -> Result<bool, kube::Error> {
    let attributes = ResourceAttributes {
        group: Some(kind.group().to_owned()),
        resource: Some(kind.as_str().to_owned()),
        verb: Some(verb.to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        ..SelfSubjectAccessReviewSpec::default()
    };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn refused(kind: Kind, verb: &str) -> Finding {
    Finding::missing(API, format!("{} may not be {verb}ed", kind.as_str()))
        .with(rule(kind), lost(kind), "give the agent's ClusterRole the rule")
        .limits()
}

/// Whether the server has a node of our name; nothing if it does not say.
async fn own_node(client: Client, config: &Config) -> Option<Finding> {
    let name = config.node_name()?;
    let nodes: Api<Node> = Api::all(client);
    // One of a list, which is what the agent may do: reading one by its name is another right.
    let selected = kube::api::ListParams::default().fields(&format!("metadata.name={name}"));
    let listed = tokio::time::timeout(TIMEOUT, nodes.list_metadata(&selected)).await.ok()?.ok()?;
    if !listed.items.is_empty() {
        return Some(Finding::ok(NODE, name.as_ref()));
    }
    Some(
        Finding::missing(NODE, format!("the API server has no node {name}"))
            .with(
                "the name of this node",
                "this node's pods are not known in full",
                "set NODE_NAME from spec.nodeName (fieldRef), or kubernetes.node",
            )
            .limits(),
    )
}
