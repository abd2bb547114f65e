//! Whose address it was: never the wrong pod's, however late news come.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use pod2pod_user::kubernetes::{
    addresses::{Addresses, Found, MAX_LATENESS, News, View},
    cgroup::PodUid,
    cluster::{Cluster, Config},
    objects::{
        Change, Endpoint, Event, Ingress, Kind, LoadBalancer, Metadata, Node, Owned, OwnerReference, Pod,
        PodIp, PodSpec, PodStatus, Port, Service, ServiceSpec, ServiceStatus, Slice, TargetRef,
    },
};
use support::rng::Rng;

const fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn address() -> IpAddr {
    IpAddr::from([10, 1, 2, 3])
}

/// An address moves from pod to pod, and news of it come late, in order.
#[test]
fn no_holder_is_ever_the_wrong_one() {
    #[derive(Clone, Copy)]
    enum Event {
        Claim,
        Ending,
        Release,
    }
    let milliseconds = |rng: &mut Rng, most: Duration| {
        Duration::from_millis(rng.below(most.as_millis() as usize + 1) as u64)
    };
    let (mut asked, mut named) = (0, 0);
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let (mut time, mut claimed) = (second(100), Duration::ZERO);
        let (mut truth, mut events) = (Vec::new(), Vec::new());
        for holder in 0..12_u32 {
            let from = time + milliseconds(&mut rng, second(8));
            let marked = from + milliseconds(&mut rng, second(40));
            // Whoever leaves is told of it first; that takes as long as the news do.
            let until = marked + milliseconds(&mut rng, second(20));
            // Addresses are told in order.
            claimed = claimed.max(from + milliseconds(&mut rng, MAX_LATENESS));
            // What is told of one that is gone by then is that it is gone.
            let told = (marked + milliseconds(&mut rng, MAX_LATENESS)).clamp(claimed, until.max(claimed));
            let gone = (until + milliseconds(&mut rng, MAX_LATENESS)).max(told);
            let gone = if until < claimed { claimed } else { gone };
            events.extend([
                (claimed, Event::Claim, holder),
                (told, Event::Ending, holder),
                (gone, Event::Release, holder),
            ]);
            truth.push((from, until, holder));
            time = until;
        }
        events.sort_by_key(|event| event.0);
        let mut addresses = Addresses::default();
        for window in 0..events.len() {
            let (at, event, holder) = events[window];
            let news = News::live(at);
            match event {
                Event::Claim => addresses.claim(address(), holder, news),
                Event::Ending => addresses.ending(address(), &holder, news),
                Event::Release => addresses.release(address(), &holder, news),
            }
            let next = events.get(window + 1).map_or(at + second(20), |next| next.0);
            let times = if next > at { 4 } else { 0 };
            for _ in 0..times {
                let now = at + milliseconds(&mut rng, next - at);
                let asked_at = now.saturating_sub(milliseconds(&mut rng, second(30)));
                let Some((.., holder)) =
                    truth.iter().find(|(from, until, _)| *from <= asked_at && asked_at <= *until)
                else {
                    continue;
                };
                asked += 1;
                if let Found::Held(found) = addresses.find(address(), asked_at, View { now, contact: now }) {
                    assert_eq!(found, *holder, "seed {seed}: at {asked_at:?}, now {now:?}");
                    named += 1;
                }
            }
        }
    }
    assert!(named * 2 > asked, "{named} of {asked}");
}

fn milliseconds(rng: &mut Rng, most: Duration) -> Duration {
    Duration::from_millis(rng.below(most.as_millis() as usize + 1) as u64)
}

fn uid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012x}")
}

/// A pod's time with an address, and what the API says of it when.
#[derive(Clone, Debug)]
struct Tenant {
    number: usize,
    address: IpAddr,
    from: Duration,
    until: Duration,
    ends_by_itself: bool,
    /// It has its address; it is told to end, or has ended; it is gone.
    claimed: Duration,
    ending: Option<Duration>,
    gone: Duration,
}

impl Tenant {
    /// The object as it is at that time, if it is.
    fn object(&self, at: Duration) -> Option<Pod> {
        if at < self.claimed || self.gone <= at {
            return None;
        }
        let is_ending = self.ending.is_some_and(|ending| ending <= at);
        Some(Pod {
            metadata: Metadata {
                name: format!("pod-{}", self.number),
                namespace: "shop".to_owned(),
                uid: uid(self.number),
                deletion_timestamp: (is_ending && !self.ends_by_itself).then(|| "some time".to_owned()),
                ..Metadata::default()
            },
            spec: PodSpec {
                restart_policy: if self.ends_by_itself { "Never" } else { "Always" }.to_owned(),
                ..PodSpec::default()
            },
            status: PodStatus {
                phase: if is_ending && self.ends_by_itself { "Succeeded" } else { "Running" }.to_owned(),
                pod_ips: vec![PodIp { ip: self.address.to_string() }],
                ..PodStatus::default()
            },
        })
    }

    fn told(&self) -> impl Iterator<Item = Duration> {
        [Some(self.claimed), self.ending, Some(self.gone)].into_iter().flatten()
    }
}

/// Tenants of an address, one after the other: told to end, removed by force, or ended by themselves.
fn tenants(rng: &mut Rng, address: IpAddr, first: usize) -> Vec<Tenant> {
    let (mut time, mut last_claimed) = (second(100), Duration::ZERO);
    let mut tenants = Vec::new();
    for number in first..first + 12 {
        let from = time + milliseconds(rng, second(8));
        let marked = from + milliseconds(rng, second(40));
        let until = marked + milliseconds(rng, second(20));
        let claimed = last_claimed.max(from + milliseconds(rng, MAX_LATENESS));
        let late = |rng: &mut Rng, at: Duration| (at + milliseconds(rng, MAX_LATENESS)).max(claimed);
        let (until, ending, gone) = match rng.below(3) {
            // It is told, then it ends, then it is gone.
            0 => {
                let told = late(rng, marked).min(until.max(claimed));
                (until, Some(told), late(rng, until).max(told))
            }
            // It is gone from the API before it ends.
            1 => (until, None, late(rng, marked).min(until.max(claimed))),
            _ => (until, Some(late(rng, until)), until + second(60)),
        };
        let ends_by_itself = gone == until + second(60);
        // Its address is told before it is removed.
        let gone = gone.max(claimed + Duration::from_millis(1));
        tenants.push(Tenant { number, address, from, until, ends_by_itself, claimed, ending, gone });
        (time, last_claimed) = (until, claimed);
    }
    tenants
}

/// Pods come and go, contact is lost and found, and no address is ever given to the wrong pod.
#[test]
fn no_pod_is_ever_the_wrong_one() {
    let (mut asked, mut named) = (0, 0);
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut all = Vec::new();
        for address in 0..3_u8 {
            all.extend(tenants(&mut rng, IpAddr::from([10, 1, 0, address]), 100 * usize::from(address)));
        }
        let mut times: Vec<Duration> = all.iter().flat_map(Tenant::told).collect();
        times.sort_unstable();
        let end = times[times.len() - 1];
        let begin = second(100) + milliseconds(&mut rng, second(60));
        let lost = begin + milliseconds(&mut rng, end - begin);
        let found = lost + milliseconds(&mut rng, second(60));
        let mut cluster = Cluster::new(Config::default());
        cluster.set_lost(Kind::Pods, Some(Duration::ZERO));
        list(&mut cluster, &all, News { at: begin, heard: Duration::ZERO });
        let mut now = begin;
        let mut has_relisted = false;
        for (index, time) in times.iter().enumerate().filter(|(_, time)| **time > begin) {
            let next = times.get(index + 1).copied().unwrap_or(*time + second(20));
            if *time <= lost || *time > found {
                if *time > found && !has_relisted {
                    list(&mut cluster, &all, News { at: found, heard: lost });
                    has_relisted = true;
                }
                now = *time;
                tell(&mut cluster, &all, now);
            }
            for _ in 0..if next > now { 6 } else { 0 } {
                // Not past what has happened by then.
                let until = if has_relisted { next } else { next.min(found) };
                let at = now.max(*time);
                let now = at + milliseconds(&mut rng, until.saturating_sub(at));
                if now > lost && !has_relisted {
                    cluster.set_lost(Kind::Pods, Some(lost));
                }
                let asked_at = now.saturating_sub(milliseconds(&mut rng, second(30)));
                let address = IpAddr::from([10, 1, 0, rng.below(3) as u8]);
                let has_it =
                    |pod: &&Tenant| pod.address == address && pod.from <= asked_at && asked_at <= pod.until;
                let Some(truth) = all.iter().find(has_it) else { continue };
                asked += 1;
                let view = View { now, contact: now };
                if let Found::Held(identity) = cluster.remote(SocketAddr::new(address, 0), asked_at, view) {
                    let name = identity.pod.expect("an address of pods").name.to_string();
                    assert_eq!(
                        name,
                        format!("pod-{}", truth.number),
                        "seed {seed}: at {asked_at:?}, now {now:?}, listed at {begin:?}, away from {lost:?} to {found:?}\n{all:#?}"
                    );
                    named += 1;
                }
            }
        }
    }
    assert!(named * 2 > asked, "{named} of {asked}");
}

/// All that is there, as a list.
fn list(cluster: &mut Cluster, all: &[Tenant], news: News) {
    cluster.apply(Event::Pod(Change::Begin), news);
    for object in all.iter().filter_map(|pod| pod.object(news.at)) {
        cluster.apply(Event::Pod(Change::Listed(object)), news);
    }
    cluster.apply(Event::Pod(Change::Done), news);
    cluster.set_lost(Kind::Pods, None);
}

/// What changed at that moment, as a watch tells it.
fn tell(cluster: &mut Cluster, all: &[Tenant], now: Duration) {
    for pod in all.iter().filter(|pod| pod.told().any(|told| told == now)) {
        let event = match pod.object(now) {
            Some(object) => Change::Applied(object),
            None => Change::Deleted(pod.object(pod.claimed).unwrap_or_else(|| Pod {
                metadata: Metadata { uid: uid(pod.number), ..Metadata::default() },
                ..Pod::default()
            })),
        };
        cluster.apply(Event::Pod(event), News::live(now));
    }
}

/// What a cluster of this size takes.
const PODS: usize = 10_000;
const DEPLOYMENTS: usize = 1_500;
const SERVICES: usize = 2_000;
const NODES: usize = 300;
const MAX_BYTES: u64 = 24 * 1024 * 1024;

fn metadata(kind: &str, number: usize, owner: Option<(&str, &str, String, usize)>) -> Metadata {
    let owner = owner.map(|(version, kind, name, number)| OwnerReference {
        api_version: version.to_owned(),
        kind: kind.to_owned(),
        name,
        uid: uid(number),
        controller: true,
    });
    Metadata {
        name: format!("checkout-{kind}-{number:05}-6b8d7c9f5d-x2x7q"),
        namespace: format!("team-{:02}", number % 50),
        uid: uid(number),
        labels: [("app", number % DEPLOYMENTS), ("pod-template-hash", number), ("version", number % 7)]
            .map(|(key, value)| (key.to_owned(), format!("{value:x}")))
            .into(),
        owner_references: owner.into_iter().collect(),
        ..Metadata::default()
    }
}

fn pod_address(number: usize) -> IpAddr {
    IpAddr::from((0x0a01_0000 + number as u32).to_be_bytes())
}

fn large_cluster() -> Cluster {
    let config = Config {
        node: Some("node-007.example.internal".into()),
        labels: vec!["app".into(), "version".into()],
        ..Config::default()
    };
    let mut cluster = Cluster::new(config);
    let news = News { at: second(100), heard: Duration::ZERO };
    let mut apply = |event| cluster.apply(event, news);
    for number in 0..NODES {
        let mut node = Node { metadata: metadata("node", number, None), ..Node::default() };
        node.metadata.name = format!("node-{number:03}.example.internal");
        apply(Event::Node(Change::Listed(node)));
    }
    for number in 0..2 * DEPLOYMENTS {
        let owner = ("apps/v1", "Deployment", format!("checkout-{number:05}"), 100_000 + number / 2);
        let metadata = metadata("set", 200_000 + number, Some(owner));
        apply(Event::ReplicaSet(Change::Listed(Owned { metadata })));
    }
    for number in 0..PODS {
        let set = 2 * (number % DEPLOYMENTS);
        let owner = ("apps/v1", "ReplicaSet", format!("checkout-{set:05}-6b8d7c9f5d"), 200_000 + set);
        let mut pod = Pod { metadata: metadata("pod", number, Some(owner)), ..Pod::default() };
        // That of the Service in front of it.
        pod.metadata.namespace = format!("team-{:02}", number / (PODS / SERVICES) % 50);
        pod.spec.node_name = format!("node-{:03}.example.internal", number % NODES);
        pod.spec.restart_policy = "Always".to_owned();
        pod.status.phase = "Running".to_owned();
        pod.status.pod_ips = vec![PodIp { ip: pod_address(number).to_string() }];
        apply(Event::Pod(Change::Listed(pod)));
    }
    for number in 0..SERVICES {
        let port = Port { port: Some(8080), protocol: Some("TCP".to_owned()), ..Port::default() };
        // Every tenth is called by a load balancer's address and a port of nodes too.
        let is_called = number % 10 == 0;
        let node_port = is_called.then_some(30_000 + number as u16);
        let ip = IpAddr::from((0xcb00_7100 + number as u32).to_be_bytes()).to_string();
        let ingress = is_called.then_some(Ingress { ip }).into_iter().collect();
        let status = ServiceStatus { load_balancer: LoadBalancer { ingress } };
        let address = IpAddr::from((0x0a60_0000 + number as u32).to_be_bytes()).to_string();
        let spec = ServiceSpec {
            cluster_ips: vec![address],
            ports: vec![Port { node_port, ..port.clone() }, port.clone()],
            ..ServiceSpec::default()
        };
        let mut service = Service { metadata: metadata("service", 300_000 + number, None), spec, status };
        service.metadata.name = format!("checkout-{number:05}");
        let each = PODS / SERVICES;
        let target = |pod| Endpoint {
            addresses: vec![pod_address(pod).to_string()],
            target_ref: Some(TargetRef { kind: "Pod".to_owned(), uid: uid(pod) }),
            ..Endpoint::default()
        };
        let mut slice = Slice {
            metadata: metadata("slice", 400_000 + number, None),
            ports: vec![port],
            endpoints: (number * each..(number + 1) * each).map(target).collect(),
            ..Slice::default()
        };
        let name = ("kubernetes.io/service-name".to_owned(), service.metadata.name.clone());
        slice.metadata.labels.extend([name]);
        slice.metadata.namespace.clone_from(&service.metadata.namespace);
        apply(Event::Service(Change::Listed(service)));
        apply(Event::Slice(Change::Listed(slice)));
    }
    apply(Event::Pod(Change::Done));
    cluster
}

#[test]
fn a_large_cluster_fits_into_its_memory() {
    let mut cluster = None;
    let counted = allocation_counter::measure(|| cluster = Some(large_cluster()));
    let cluster = cluster.expect("made");
    let stats = cluster.stats();
    let objects = [PODS, SERVICES, SERVICES, NODES, 2 * DEPLOYMENTS, 0].map(|count| count as u64);
    assert_eq!((stats.objects, stats.ignored), (objects, [0; 4]));
    let taken = u64::try_from(counted.bytes_current).expect("what is held");
    assert!(taken <= MAX_BYTES, "{taken} bytes");
    let (least, most) = (taken * 3 / 4, taken * 5 / 4);
    assert!((least..=most).contains(&stats.bytes), "told {}, and {taken} are taken", stats.bytes);
    println!("{taken} bytes, told as {}; at most {}", stats.bytes, counted.bytes_max);
    // And all of it is found.
    let now = second(200);
    for number in (0..PODS).step_by(97) {
        let end = SocketAddr::new(pod_address(number), 8080);
        let Found::Held(found) = cluster.remote(end, now, View { now, contact: now }) else {
            panic!("{number}")
        };
        let pod = found.pod.expect("a pod");
        assert_eq!(Some(pod.uid), PodUid::parse(&uid(number)));
        assert_eq!(
            found.service.map(|service| service.name.to_string()),
            Some(format!("checkout-{:05}", number / 5))
        );
        assert!(pod.workload.is_some() && pod.labels.len() == 2);
    }
}
