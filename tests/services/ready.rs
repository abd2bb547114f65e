//! When the agent is ready: with the first lists, and also where nobody gives them.

use std::{fs, net::TcpListener};

use support::{kubernetes::server::ApiServer, netns::Cgroup};

use crate::{agent::Agent, until};

#[test]
fn an_agent_is_ready_with_the_first_lists_and_where_there_are_none_to_be_had() {
    let mut server = ApiServer::start();
    server.add_user("agent", "");
    server.restart();
    let cgroup = Cgroup::new();
    // It takes connections and says nothing: whether it answers is not known yet.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let kubeconfig = |port: u16| {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("kubeconfig");
        let text = format!(
            r#"{{"clusters":[{{"name":"a","cluster":{{"server":"http://127.0.0.1:{port}"}}}}],
            "users":[{{"name":"a","user":{{}}}}],"contexts":[{{"name":"a","context":{{"cluster":"a","user":"a"}}}}],
            "current-context":"a"}}"#
        );
        fs::write(&file, text).expect("a file");
        (folder, file)
    };
    let (_folder, file) = kubeconfig(mute.local_addr().expect("a port").port());
    let agent = Agent::start(&file, &cgroup);
    let awaited = (503, "the API server's first lists are awaited".to_owned());
    until(|| agent.ready() == Some(awaited.clone()));
    // It does not answer in time.
    let failed = |agent: &Agent| {
        until(|| agent.ready().is_some_and(|(status, _)| status == 200));
        let (_, says) = agent.ready().expect("an answer");
        assert!(says.starts_with("ok, but not all the API server has is known"), "{says}");
    };
    failed(&agent);
    agent.end();
    // Nobody is there.
    drop(mute);
    let agent = Agent::start(&file, &cgroup);
    failed(&agent);
    agent.end();
    // It refuses.
    let agent = Agent::start(&server.kubeconfig("agent"), &cgroup);
    failed(&agent);
    agent.end();
}
