//! etcd and kube-apiserver as child processes on loopback: started, stopped, held, compacted. Their data is in memory and goes with
//! them; if the test fails, their logs are kept. What is in the API is not known here.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test support: a failure here is the test's failure")]

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    keeper,
    kubernetes::client::{Client, Request},
    process,
};

/// A folder that is a memory file system on every Linux.
const MEMORY: &str = "/dev/shm";
/// Begins the names of folders; the process id and a number follow.
const PREFIX: &str = "pod2pod-servers-";
/// Ports that the kernel gives nobody by itself (`net.ipv4.ip_local_port_range` begins at 32768): a server that is stopped finds
/// its own again.
const PORTS: std::ops::Range<u16> = 16_000..32_000;
/// How long a server may take to start: 3 s on two idle cores.
const MAX_START: Duration = Duration::from_secs(120);
/// How long one may take to end: it waits for watches.
const MAX_END: Duration = Duration::from_secs(60);
/// Between two looks at whether a program is ready, or has ended.
const PAUSE: Duration = Duration::from_millis(20);
/// Tries to start, each on other ports: another process may have been given one of them.
const MAX_TRIES: u32 = 3;
/// Lines of a log that a failure shows.
const LAST_LINES: usize = 15;

/// Where services get their addresses.
pub const SERVICE_RANGE: &str = "10.96.0.0/12";
/// The user who may do everything.
pub const ADMIN: &str = "admin";

/// Each request of a user who is not of `system:masters`, once, when it comes.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [ResponseStarted, ResponseComplete, Panic]\n\
    rules:\n- {level: None, userGroups: ['system:masters']}\n- {level: None, users: ['system:anonymous', 'system:apiserver']}\n\
    - {level: Metadata}\n";

/// A user, and the token that says so.
#[derive(Clone, Debug)]
pub struct User {
    /// What RBAC calls it.
    pub name: String,
    /// Secret of tests.
    pub token: String,
    /// Its groups.
    pub groups: &'static str,
}

/// A request that somebody made, as the server's audit log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `list`, `watch`, `get` and so on.
    pub verb: String,
    /// Such as `pods`, or the path of what is none.
    pub resource: String,
    /// Path and query.
    pub uri: String,
    /// Name of the user.
    pub user: String,
}

/// An API server with its etcd.
pub struct ApiServer {
    folder: PathBuf,
    ports: Ports,
    users: Vec<User>,
    etcd: Option<Child>,
    api: Option<Child>,
}

#[derive(Clone, Copy)]
struct Ports {
    api: u16,
    etcd: u16,
    peers: u16,
}

impl ApiServer {
    /// Starts both, and waits until they are ready.
    pub fn start() -> Self {
        remove_leftovers();
        let mut said = String::new();
        for _ in 0..MAX_TRIES {
            let mut server = Self::new();
            match server.start_etcd().and_then(|()| server.start_api()) {
                Ok(()) => return server,
                Err(error) if error.contains("address already in use") => said = error,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("no ports for the servers: {said}");
    }

    fn new() -> Self {
        let folder = new_folder();
        for name in ["etcd", "certificates"] {
            fs::DirBuilder::new().mode(0o700).create(folder.join(name)).unwrap();
        }
        fs::write(folder.join("audit.yaml"), AUDIT_POLICY).unwrap();
        let ports = Ports { api: free_port(), etcd: free_port(), peers: free_port() };
        let mut server = Self { folder, ports, users: Vec::new(), etcd: None, api: None };
        server.add_user(ADMIN, "system:masters");
        server
    }

    /// Adds a user; the server knows it from its next start on. Without groups it may do only what RBAC says.
    pub fn add_user(&mut self, name: &str, groups: &'static str) {
        let token = format!("{name}-token-{}", self.users.len());
        self.users.retain(|user| user.name != name);
        self.users.push(User { name: name.to_owned(), token: token.clone(), groups });
        let lines =
            self.users.iter().enumerate().map(|(number, user)| {
                format!("{},{},uid-{number},\"{}\"\n", user.token, user.name, user.groups)
            });
        fs::write(self.path("tokens.csv"), lines.collect::<String>()).unwrap();
        fs::write(self.kubeconfig(name), self.kubeconfig_with(&token)).unwrap();
    }

    /// The file for a user that was added.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.path(&format!("{user}.kubeconfig"))
    }

    /// What such a file holds for somebody with this token.
    pub fn kubeconfig_with(&self, token: &str) -> String {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url(), "certificate-authority": self.authority()}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        config.to_string()
    }

    /// Where the API is.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.api))
    }

    /// The same as a URL.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The certificates to believe.
    pub fn authority(&self) -> PathBuf {
        self.path("certificates/apiserver.crt")
    }

    /// Process id of kube-apiserver.
    pub fn id(&self) -> u32 {
        self.api.as_ref().expect("the server runs").id()
    }

    /// Somebody who may do everything.
    pub fn admin(&self) -> Client {
        self.client(ADMIN)
    }

    /// A user that was added.
    pub fn client(&self, user: &str) -> Client {
        Client::new(&self.kubeconfig(user))
    }

    /// `kubectl` of the server's own version, as who may do everything.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> process::Finished {
        let mut command = Command::new(program("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig(ADMIN)).args(arguments);
        // Discovery is cached in the home directory otherwise, by the server's address.
        command.env("KUBECACHEDIR", self.path("kubectl"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        process::run(command, input.as_bytes())
    }

    /// `helm`, which asks no server and finds nothing of this machine's user.
    pub fn helm(&self, arguments: &[&str]) -> process::Finished {
        let mut command = Command::new(program("helm"));
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.path("helm"));
        }
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::run(command, b"")
    }

    /// A token of a service account, valid for ten minutes, which is the least that there is.
    pub fn token(&self, namespace: &str, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"expirationSeconds": 600}});
        let answer = self.admin().ask(&Request::create(path, request));
        answer["status"]["token"].as_str().unwrap().to_owned()
    }

    /// Tokens of service accounts that were given out are worth nothing from the next start on.
    pub fn forget_tokens(&self) {
        for name in ["apiserver.key", "apiserver.crt"] {
            fs::remove_file(self.path("certificates").join(name)).unwrap();
        }
    }

    /// Requests of users with limited rights so far.
    pub fn asked(&self) -> Vec<Asked> {
        let log = fs::read_to_string(self.path("audit.log")).unwrap_or_default();
        // The last line may be half written.
        let events = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let events = events.map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |event: Value| Asked {
            verb: text(&event["verb"]),
            resource: text(event["objectRef"].get("resource").unwrap_or(&event["requestURI"])),
            uri: text(&event["requestURI"]),
            user: text(&event["user"]["username"]),
        };
        events.map(one).collect()
    }

    /// Ends kube-apiserver as a service manager would; etcd goes on.
    pub fn stop(&mut self) {
        let mut child = self.api.take().expect("the server runs");
        signal(&child, Signal::SIGTERM);
        if wait(&mut child, MAX_END).is_none() {
            end(&mut child);
            panic!("kube-apiserver did not end: {}", self.last_words("kube-apiserver"));
        }
    }

    /// Starts it again at the same address, on the same etcd.
    pub fn start_again(&mut self) {
        self.start_api().unwrap();
    }

    /// Stops and starts it.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// It stays and answers nothing, until [`ApiServer::go_on`].
    pub fn hold(&self) {
        signal(self.api.as_ref().expect("the server runs"), Signal::SIGSTOP);
    }

    /// Ends [`ApiServer::hold`].
    pub fn go_on(&self) {
        signal(self.api.as_ref().expect("the server runs"), Signal::SIGCONT);
    }

    /// Has etcd forget all but the newest version of everything.
    pub fn compact(&self) {
        let status = self.etcd_asked("/v3/maintenance/status", &json!({}));
        let revision = &status["header"]["revision"];
        self.etcd_asked("/v3/kv/compaction", &json!({"revision": revision, "physical": true}));
    }

    /// etcd's gateway from JSON to gRPC.
    fn etcd_asked(&self, path: &str, body: &Value) -> Value {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports.etcd)).unwrap();
        stream.set_read_timeout(Some(MAX_END)).unwrap();
        let body = body.to_string();
        // HTTP/1.0: the answer is not chunked, and ends with the connection.
        write!(stream, "POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.split(' ').nth(1) == Some("200"), "{path}: {answer}");
        serde_json::from_str(body).unwrap()
    }

    fn start_etcd(&mut self) -> Result<(), String> {
        let [client, peer] =
            [self.ports.etcd, self.ports.peers].map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = keeper::command(&program("etcd"));
        command.args(["--name", "test", "--unsafe-no-fsync", "--initial-cluster", &format!("test={peer}")]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.arg("--data-dir").arg(self.path("etcd"));
        let mut child = self.spawn("etcd", command);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.etcd));
        let started = self.until(&mut child, "etcd", || TcpStream::connect(address).is_ok());
        self.etcd = Some(child);
        started
    }

    fn start_api(&mut self) -> Result<(), String> {
        let mut command = keeper::command(&program("kube-apiserver"));
        let key = self.path("certificates/apiserver.key");
        let Ports { api, etcd, .. } = self.ports;
        for (flag, value) in [
            ("etcd-servers", format!("http://127.0.0.1:{etcd}")),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", api.to_string()),
            // Nobody is told to come here: it need only be one that a node could have.
            ("advertise-address", "192.0.2.1".to_owned()),
            ("endpoint-reconciler-type", "none".to_owned()),
            ("service-cluster-ip-range", SERVICE_RANGE.to_owned()),
            ("authorization-mode", "RBAC".to_owned()),
            ("allow-privileged", "true".to_owned()),
            // Otherwise a pod could not be made before a controller had made its service account.
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
            ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ] {
            command.arg(format!("--{flag}={value}"));
        }
        for (flag, path) in [
            ("cert-dir", self.path("certificates")),
            ("token-auth-file", self.path("tokens.csv")),
            ("audit-policy-file", self.path("audit.yaml")),
            ("audit-log-path", self.path("audit.log")),
            // It makes this one itself, before it looks for it here.
            ("service-account-key-file", key.clone()),
            ("service-account-signing-key-file", key),
        ] {
            command.arg(format!("--{flag}={}", path.display()));
        }
        let mut child = self.spawn("kube-apiserver", command);
        let started = self.until(&mut child, "kube-apiserver", || {
            // The certificate is there before the port is open.
            self.authority().exists()
                && TcpStream::connect(self.address()).is_ok()
                && self.admin().text(&Request::get("/readyz")).is_ok_and(|answer| answer == "ok")
        });
        self.api = Some(child);
        started
    }

    fn spawn(&self, name: &str, mut command: Command) -> Child {
        let log = File::options().append(true).create(true).open(self.log(name)).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).current_dir(&self.folder);
        keeper::start(command).unwrap_or_else(|error| panic!("cannot start {name}: {error}"))
    }

    /// Waits until `is_ready`; what the program said, if it ended instead.
    fn until(&self, child: &mut Child, name: &str, is_ready: impl Fn() -> bool) -> Result<(), String> {
        let deadline = Instant::now() + MAX_START;
        while !is_ready() {
            let ended = child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let what = ended.map_or("is not ready".to_owned(), |status| format!("ended: {status}"));
                end(child);
                return Err(format!("{name} {what}\n{}", self.last_words(name)));
            }
            thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.path(&format!("{name}.log"))
    }

    fn last_words(&self, name: &str) -> String {
        let log = fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }

    /// Copies the logs to where they stay.
    fn keep_logs(&self) {
        let kept = workspace().join("target/servers-logs").join(self.folder.file_name().unwrap());
        let copied = fs::create_dir_all(&kept).and_then(|()| {
            ["etcd.log", "kube-apiserver.log", "audit.log"]
                .iter()
                .filter(|name| self.path(name).exists())
                .try_for_each(|name| fs::copy(self.path(name), kept.join(name)).map(drop))
        });
        let said = copied.map_or_else(|error| error.to_string(), |()| kept.display().to_string());
        let _ = writeln!(std::io::stderr(), "the servers' logs: {said}");
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // What they hold is thrown away, so they need not end in order.
        for child in [&mut self.api, &mut self.etcd].into_iter().flatten() {
            end(child);
        }
        if thread::panicking() {
            self.keep_logs();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A program that `cargo xtask setup services` built.
pub fn program(name: &str) -> PathBuf {
    let path = workspace().join("target/servers").join(name);
    assert!(path.exists(), "{} is not there; run: cargo xtask setup services", path.display());
    path
}

/// The root of the work tree.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are in the work tree")
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

/// Waits for its end; absent if it goes on.
fn wait(child: &mut Child, within: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        match child.try_wait().unwrap() {
            None if Instant::now() < deadline => thread::sleep(PAUSE),
            status => return status,
        }
    }
}

fn end(child: &mut Child) {
    // It may have ended already.
    let _ = child.kill();
    let _ = child.wait();
}

fn new_folder() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let parent = if Path::new(MEMORY).is_dir() { PathBuf::from(MEMORY) } else { std::env::temp_dir() };
    let folder = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

/// Removes the folders of processes that were killed: they could not do it themselves.
fn remove_leftovers() {
    for entry in fs::read_dir(MEMORY).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let owner = rest.and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            // Another process may be at it too.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A loopback port that nobody listens on, and that this process has not been given before.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Processes that run beside each other begin at different places.
    let begin = (std::process::id().wrapping_mul(251) % u32::from(count)) as u16;
    for _ in 0..count {
        let offset = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % count;
        let port = PORTS.start + offset;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {} to {}", PORTS.start, PORTS.end);
}
