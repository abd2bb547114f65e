//! Asks an API server, one request or many at a time. What is asked is the caller's.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test support: a failure here is the test's failure")]

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::JoinSet};

/// Requests under way at a time: more would only wait in the server.
const MAX_AT_A_TIME: usize = 16;

/// One request: method, path with query, body.
#[derive(Clone, Debug)]
pub struct Request {
    method: &'static str,
    path: String,
    body: Option<Value>,
}

impl Request {
    /// Reads an object or a list.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", path: path.into(), body: None }
    }

    /// Makes an object.
    pub fn create(path: impl Into<String>, object: Value) -> Self {
        Self { method: "POST", path: path.into(), body: Some(object) }
    }

    /// Changes an object by a merge patch (RFC 7396); a status, if the path ends in `/status`.
    pub fn patch(path: impl Into<String>, change: Value) -> Self {
        Self { method: "PATCH", path: path.into(), body: Some(change) }
    }

    /// Asks for the end of an object: of a pod that has a node, it is marked and stays.
    pub fn delete(path: impl Into<String>) -> Self {
        Self { method: "DELETE", path: path.into(), body: None }
    }

    /// Removes an object, as a kubelet does when all of a pod has ended.
    pub fn remove(path: impl Into<String>) -> Self {
        Self { method: "DELETE", path: path.into(), body: Some(json!({"gracePeriodSeconds": 0})) }
    }

    fn message(&self) -> http::Request<Vec<u8>> {
        let content =
            if self.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = self.body.as_ref().map(|body| serde_json::to_vec(body).unwrap()).unwrap_or_default();
        let message = http::Request::builder().method(self.method).uri(&self.path);
        message.header("content-type", content).body(body).unwrap()
    }
}

/// Who asks, with connections of its own.
pub struct Client {
    // Before the runtime that it lives in.
    client: kube::Client,
    runtime: Runtime,
}

impl Client {
    /// As the user and of the server that the file says.
    pub fn new(kubeconfig: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let file = Kubeconfig::read_from(kubeconfig).unwrap();
            let options = KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(file, &options).await.unwrap();
            kube::Client::try_from(config).unwrap()
        });
        Self { client, runtime }
    }

    /// The answer as it is.
    ///
    /// # Errors
    /// The server refuses, or does not answer.
    pub fn text(&self, request: &Request) -> Result<String, kube::Error> {
        self.runtime.block_on(self.client.request_text(request.message()))
    }

    /// The answer.
    ///
    /// # Errors
    /// As [`Client::text`].
    pub fn try_ask(&self, request: &Request) -> Result<Value, kube::Error> {
        self.runtime.block_on(self.client.request(request.message()))
    }

    /// The answer to what cannot be refused.
    pub fn ask(&self, request: &Request) -> Value {
        self.try_ask(request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    /// The answers to many, in their order.
    pub fn ask_all(&self, requests: Vec<Request>) -> Vec<Value> {
        let mut answers = vec![Value::Null; requests.len()];
        self.runtime.block_on(async {
            let mut under_way = JoinSet::new();
            for (index, request) in requests.into_iter().enumerate() {
                if under_way.len() >= MAX_AT_A_TIME {
                    keep(&mut answers, under_way.join_next().await);
                }
                let client = self.client.clone();
                under_way.spawn(async move {
                    let answer = client.request::<Value>(request.message()).await;
                    (index, answer.unwrap_or_else(|error| panic!("{request:?}: {error}")))
                });
            }
            while let Some(answer) = under_way.join_next().await {
                keep(&mut answers, Some(answer));
            }
        });
        answers
    }

    /// The HTTP status of a refusal; 200 if there is none.
    pub fn status(&self, request: &Request) -> u16 {
        match self.try_ask(request) {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(error) => panic!("{request:?}: {error}"),
        }
    }
}

fn keep(answers: &mut [Value], done: Option<Result<(usize, Value), tokio::task::JoinError>>) {
    let (index, answer) = done.unwrap().unwrap();
    answers[index] = answer;
}
