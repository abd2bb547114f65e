//! A real Kubernetes API server for tests, and objects in it. There is no kubelet and no controller: a test says what they would.

pub mod churn;
pub mod client;
pub mod fleet;
pub mod objects;
pub mod population;
pub mod server;
