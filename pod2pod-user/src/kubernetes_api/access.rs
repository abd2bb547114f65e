//! Where the API server is, and who we are to it. Read again whenever it refuses us: tokens and certificates change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::Request;
use hyper_util::rt::TokioExecutor;
use kube::{
    Client,
    client::{Body, ConfigExt as _},
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, ServiceBuilder};

use super::{
    connect::Connector,
    trouble::{Cause, Trouble},
};
use crate::sinks::OwnConnections;

/// Who asks for it to be read again within this time of the last reading gets what was read.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Connections that nobody uses are closed after this time: between a list's pages they are used again.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// What a pod is given.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Where that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In files, over each other.
    Files(PathBuf),
    /// In what a pod is given.
    Pod,
}

impl Place {
    /// What is configured, else `KUBECONFIG`, else what a pod is given; absent if there is none.
    pub(super) fn find(configured: Option<&Path>) -> Option<Self> {
        if let Some(path) = configured {
            return Some(Self::Files(path.to_owned()));
        }
        if let Some(path) = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
            return Some(Self::Files(path.into()));
        }
        let is_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN_FILE).exists();
        is_pod.then_some(Self::Pod)
    }

    async fn read(&self) -> Result<kube::Config, Trouble> {
        let failed = |error: &dyn std::error::Error| Trouble::new(Cause::Configuration, error);
        match self {
            Self::Pod => kube::Config::incluster_env().map_err(|error| failed(&error)),
            Self::Files(path) => {
                let file = Kubeconfig::read_from(path).map_err(|error| failed(&error))?;
                let options = KubeConfigOptions::default();
                kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| failed(&error))
            }
        }
    }
}

/// The way to the server, as it was last read.
pub(super) struct Access {
    place: Place,
    own: Arc<OwnConnections>,
    client: Mutex<Option<(Client, Instant)>>,
}

impl Access {
    pub(super) fn new(place: Place, own: Arc<OwnConnections>) -> Self {
        Self { place, own, client: Mutex::new(None) }
    }

    /// What asks; read anew if it was refused.
    pub(super) async fn client(&self) -> Result<Client, Trouble> {
        if let Some((client, _)) = &*self.lock() {
            return Ok(client.clone());
        }
        let mut config = self.place.read().await?;
        if config.cluster_url.scheme() == Some(&http::uri::Scheme::HTTP) {
            // Without TLS nothing is believed by certificates: a machine need not have any.
            config.root_cert.get_or_insert_default();
        }
        let client = self.build(&config).map_err(|error| Trouble::new(Cause::Configuration, error))?;
        *self.lock() = Some((client.clone(), Instant::now()));
        Ok(client)
    }

    /// The server refused us: who we are is read again.
    pub(super) fn refused(&self) {
        let mut client = self.lock();
        if client.as_ref().is_some_and(|(_, read)| read.elapsed() >= READ_AGAIN_AFTER) {
            *client = None;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Client, Instant)>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build(&self, config: &kube::Config) -> Result<Client, kube::Error> {
        let connector = Connector { own: Arc::clone(&self.own) };
        let connector = config.rustls_https_connector_with_connector(connector)?;
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build::<_, Body>(connector);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .map_request(|mut request: Request<Body>| {
                let name = http::HeaderValue::from_static(crate::OWN_USER_AGENT);
                request.headers_mut().insert(http::header::USER_AGENT, name);
                request
            })
            .map_err(BoxError::from)
            .service(http);
        Ok(Client::new(service, config.default_namespace.clone()))
    }
}
