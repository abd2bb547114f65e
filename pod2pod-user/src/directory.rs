//! The directory of the live agent: whose a socket is by the path of its cgroup, whose an address is by what the API server told.
//!
//! Paths are read for all workers together, and not more often than so many times a second, however fast cgroups come and go.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use hashbrown::HashMap;

use crate::{
    capture::kernel,
    enrich::naming::{Socket, Who},
    host::Host,
    kubernetes::{
        addresses::{Found, View},
        cgroup::{Place, places},
        identity::Identity,
    },
    kubernetes_api::Shared,
    record::Extra,
};

/// The hierarchy of cgroups is read this often at most: with a thousand of them it takes some milliseconds.
pub const READ_INTERVAL: Duration = Duration::from_millis(500);
/// Cgroups whose pod was asked for and is not known: more than start within the time that news take. Past it all are forgotten.
pub const MAX_ASKED: usize = 4096;

/// What is read of cgroups, by all workers.
#[derive(Debug, Default)]
pub struct Cgroups {
    host: Host,
    read: Option<Duration>,
    /// Of a pod that is not known: since when it is asked for.
    asked: HashMap<u64, Duration>,
    /// How often all that are asked for were forgotten.
    forgotten: Arc<AtomicU64>,
    /// Numbers of cgroups do not tell pods apart: of cgroup v1, and where both are in use, they are those of the root.
    is_mute: bool,
}

impl Cgroups {
    /// Of this machine.
    pub fn of_host() -> Self {
        let (mut host, is_mute) = (Host::default(), !kernel::v1_controllers().is_empty());
        if !is_mute {
            host.open();
        }
        Self { host, is_mute, ..Self::default() }
    }

    /// Whether numbers of cgroups tell pods apart, and there are pods.
    pub fn tell_pods(&mut self) -> bool {
        !self.is_mute && self.host.has_cgroup(|path| places(path).next().is_some())
    }

    /// Path of a cgroup; later if it is not known and was looked for just now.
    fn path(&mut self, id: u64, now: Duration) -> Path<'_> {
        if self.host.known_cgroup(id).is_none() && !self.host.is_gone(id) {
            if let Some(next) = self.read.map(|read| read + READ_INTERVAL).filter(|next| now < *next) {
                return Path::Later(next);
            }
            self.read = Some(now);
            self.host.look_for(id);
        }
        self.host.known_cgroup(id).map_or(Path::Gone, Path::Known)
    }

    /// Since when the pod of a cgroup is asked for that is not known.
    fn asked(&mut self, id: u64, now: Duration) -> Duration {
        if self.asked.len() >= MAX_ASKED && !self.asked.contains_key(&id) {
            self.asked.clear();
            self.forgotten.fetch_add(1, Relaxed);
        }
        *self.asked.entry(id).or_insert(now)
    }
}

enum Path<'a> {
    Known(&'a str),
    Later(Duration),
    Gone,
}

/// One worker's way to what all share.
#[derive(Clone, Debug)]
pub struct Directory {
    cluster: Shared,
    cgroups: Arc<Mutex<Cgroups>>,
    forgotten: Arc<AtomicU64>,
    node: Option<Arc<str>>,
    /// Keys of labels and annotations that records have.
    shown: Arc<[Vec<String>; 2]>,
}

impl Directory {
    /// Asks these; `node` is our own. Records have these labels and annotations of pods.
    pub fn new(cluster: Shared, cgroups: Cgroups, node: Option<Arc<str>>, shown: [Vec<String>; 2]) -> Self {
        let forgotten = Arc::clone(&cgroups.forgotten);
        Self { cluster, cgroups: Arc::new(Mutex::new(cgroups)), forgotten, node, shown: Arc::new(shown) }
    }

    /// What is asked about addresses.
    pub const fn cluster(&self) -> &Shared {
        &self.cluster
    }

    /// How often all cgroups whose pod is asked for were forgotten because there were too many.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// One that panicked leaves whole tables behind.
    fn cgroups(&self) -> MutexGuard<'_, Cgroups> {
        self.cgroups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pod that the API server knows of one of these places, the outermost that it does: a pod may call cgroups below its own
    /// as it likes, and of a node that is in a pod, that pod is another cluster's.
    fn pod(&self, places: &[Place], called: Option<SocketAddr>, now: Duration) -> Option<Identity> {
        let cluster = self.cluster.read();
        let identity = places.iter().find_map(|place| cluster.local(place))?;
        let of_pod = |called| cluster.service_of(identity.pod.as_ref()?, called, now);
        let service = called.and_then(of_pod);
        Some(Identity { service, ..identity })
    }
}

impl Who for Directory {
    fn version(&self) -> u64 {
        self.cluster.version()
    }

    fn socket(&mut self, cgroup_id: u64, called: Option<SocketAddr>, now: Duration) -> Socket {
        let mut cgroups = self.cgroups();
        if cgroups.is_mute {
            return Socket::Unknown;
        }
        let places: Vec<Place> = match cgroups.path(cgroup_id, now) {
            Path::Known(path) => places(path).collect(),
            Path::Later(then) => return Socket::Later(then),
            Path::Gone => return Socket::Unknown,
        };
        let Some(place) = places.first() else {
            let node = self.node.clone();
            return Socket::Of(Box::new(Identity { node, ..Identity::default() }));
        };
        if let Some(identity) = self.pod(&places, called, now) {
            cgroups.asked.remove(&cgroup_id);
            return Socket::Of(Box::new(identity));
        }
        // It was not heard of yet; without an API server it never will be, and is known by its uid all the same.
        let since = cgroups.asked(cgroup_id, now);
        if let Some(until) = self.cluster.read().patience(since, View { now, contact: now }) {
            return Socket::Later(until);
        }
        if places.len() > 1 {
            // Which of them is of this cluster nobody says.
            return Socket::Unknown;
        }
        Socket::Of(Box::new(Identity { place: Some(*place), ..Identity::default() }))
    }

    fn address(&mut self, address: SocketAddr, at: Duration, now: Duration) -> Found<Identity> {
        // Whether there is contact the cluster knows itself, of each kind.
        self.cluster.read().remote(address, at, View { now, contact: now })
    }

    fn is_outside(&self, address: IpAddr) -> bool {
        self.cluster.read().is_outside(address)
    }

    fn shows(&self, what: Extra, key: &str) -> bool {
        let [labels, annotations] = &*self.shown;
        let keys = if what == Extra::Label { labels } else { annotations };
        keys.iter().any(|shown| shown == key)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt as _, path};

    use super::*;
    use crate::{
        kubernetes::{
            addresses::News,
            objects::{Change, Event},
        },
        kubernetes_api,
    };

    const UID: &str = "0b1c2d3e-4f50-4172-8394-a5b6c7d8e9fa";
    const ID: &str = "3f5c0e9d6f0bd7a1f2a4b6c8e0d1f3a5b7c9e1f3a5b7c9e1f3a5b7c9e1f3a5b7";

    /// A hierarchy on disk.
    struct Tree(tempdir::Dir);

    mod tempdir {
        use std::{env, fs, path::PathBuf, process};

        /// Removed when dropped.
        pub(super) struct Dir(pub(super) PathBuf);

        impl Dir {
            pub(super) fn new(name: &str) -> Self {
                let path = env::temp_dir().join(format!("pod2pod-{name}-{}", process::id()));
                fs::create_dir_all(&path).unwrap();
                Self(path)
            }
        }

        impl Drop for Dir {
            fn drop(&mut self) {
                let _ = fs::remove_dir_all(&self.0);
            }
        }
    }

    impl Tree {
        /// The number of a cgroup, which is made.
        fn make(&self, path: &str) -> u64 {
            let path = self.0.0.join(path);
            fs::create_dir_all(&path).unwrap();
            fs::metadata(path).unwrap().ino()
        }

        fn remove(&self, path: &str) {
            let path: &path::Path = path.as_ref();
            fs::remove_dir(self.0.0.join(path)).unwrap();
        }
    }

    fn second(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn told(cgroups: &mut Cgroups, id: u64, now: Duration) -> Result<Option<String>, Duration> {
        match cgroups.path(id, now) {
            Path::Known(path) => Ok(Some(path.to_owned())),
            Path::Gone => Ok(None),
            Path::Later(then) => Err(then),
        }
    }

    #[test]
    fn pods_are_told_by_cgroups_where_both_are() {
        let tree = Tree(tempdir::Dir::new("pods"));
        let tell = |is_mute| Cgroups { host: Host::of(&tree.0.0), is_mute, ..Cgroups::default() }.tell_pods();
        tree.make("system.slice/nginx.service");
        tree.make("kubepods.slice/kubepods-burstable.slice");
        assert!(!tell(false));
        tree.make(&format!("kubepods/burstable/pod{UID}/{ID}"));
        assert!(tell(false) && !tell(true));
    }

    /// What the API tells of a pod of ours.
    fn heard_of(cluster: &Shared, uid: &str, name: &str) {
        let pod = serde_json::json!({"metadata": {"namespace": "shop", "name": name, "uid": uid},
            "spec": {"nodeName": "node-a"}, "status": {"phase": "Running"}});
        let pod = serde_json::from_value(pod).unwrap();
        cluster.apply(Event::Pod(Change::Applied(pod)), News::live(second(100)));
    }

    #[test]
    fn a_pod_that_makes_cgroups_of_its_own_is_itself_whatever_they_are_called() {
        const OTHER: &str = "aaaaaaaa-4f50-4172-8394-a5b6c7d8e9fa";
        let tree = Tree(tempdir::Dir::new("nested"));
        let id = tree.make(&format!("kubepods/burstable/pod{UID}/{ID}/kubepods/pod{OTHER}/{ID}"));
        let tell = |known: &[(&str, &str)]| {
            let config = kubernetes_api::Config { node: Some("node-a".to_owned()), ..Default::default() };
            let cluster = kubernetes_api::without_server(&config, || second(100));
            known.iter().for_each(|(uid, name)| heard_of(&cluster, uid, name));
            let cgroups = Cgroups { host: Host::of(&tree.0.0), ..Cgroups::default() };
            match Directory::new(cluster, cgroups, None, Default::default()).socket(id, None, second(200)) {
                Socket::Of(identity) => {
                    Some(identity.pod.map_or_else(|| "nameless".to_owned(), |pod| pod.name.to_string()))
                }
                Socket::Later(_) | Socket::Unknown => None,
            }
        };
        assert_eq!(tell(&[(UID, "web"), (OTHER, "victim")]).as_deref(), Some("web"));
        // A node in a pod of another cluster.
        assert_eq!(tell(&[(OTHER, "cart")]).as_deref(), Some("cart"));
        assert_eq!(tell(&[]), None);
    }

    #[test]
    fn the_hierarchy_is_read_for_what_is_new_and_not_too_often() {
        let tree = Tree(tempdir::Dir::new("cgroups"));
        let pod = format!("kubepods/burstable/pod{UID}");
        let first = tree.make(&format!("{pod}/{ID}"));
        let mut cgroups = Cgroups { host: Host::of(&tree.0.0), ..Cgroups::default() };
        let path = Ok(Some(format!("/{pod}/{ID}")));
        assert_eq!(told(&mut cgroups, first, second(1)), path);
        let service = tree.make("system.slice/nginx.service");
        let next = second(1) + READ_INTERVAL;
        assert_eq!(told(&mut cgroups, service, next - Duration::from_nanos(1)), Err(next));
        assert_eq!(
            told(&mut cgroups, first, next - Duration::from_nanos(1)),
            path,
            "what is known needs no reading"
        );
        assert_eq!(told(&mut cgroups, service, next), Ok(Some("/system.slice/nginx.service".to_owned())));
        // What is gone is looked for once.
        let gone = tree.make("gone");
        tree.remove("gone");
        assert_eq!(told(&mut cgroups, gone, second(10)), Ok(None));
        assert_eq!(told(&mut cgroups, gone, second(10)), Ok(None));
        assert_eq!(cgroups.read, Some(second(10)));
        assert_eq!(told(&mut cgroups, gone, second(20)), Ok(None));
        assert_eq!(cgroups.read, Some(second(10)));
    }

    #[test]
    fn so_many_pods_are_asked_for_at_once() {
        let mut cgroups = Cgroups::default();
        assert_eq!(cgroups.asked(1, second(100)), second(100));
        assert_eq!(cgroups.asked(1, second(103)), second(100));
        for id in 2..=MAX_ASKED as u64 {
            cgroups.asked(id, second(104));
        }
        assert_eq!((cgroups.asked(1, second(104)), cgroups.forgotten.load(Relaxed)), (second(100), 0));
        cgroups.asked(MAX_ASKED as u64 + 1, second(104));
        assert_eq!((cgroups.asked(1, second(105)), cgroups.forgotten.load(Relaxed)), (second(105), 1));
    }
}
