//! The README's tables are the code's. `UPDATE_EXPECT=1` writes them.

use std::{fmt::Write as _, fs, path::Path};

use pod2pod_user::{
    config::{
        keys::keys,
        legacy::NAMES,
        targets::{SinkKey, TYPES, common_keys},
    },
    record::{field::Presence, fields, template::index_template},
    rights::RIGHTS,
};

#[test]
fn tables_are_as_the_code_has_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let mut readme = fs::read_to_string(&path).unwrap();
    for (name, table) in [
        ("fields", fields()),
        ("configuration", configuration()),
        ("sinks", sinks()),
        ("rights", rights()),
        ("legacy", legacy()),
    ] {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
        let from = readme.find(&begin).unwrap_or_else(|| panic!("{begin} is missing")) + begin.len();
        let to = readme.find(&end).unwrap_or_else(|| panic!("{end} is missing"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            readme.replace_range(from..to, &table);
        } else {
            assert_eq!(&readme[from..to], table, "README.md: run with UPDATE_EXPECT=1");
        }
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, readme).unwrap();
    }
}

#[test]
fn index_templates_are_as_the_code_has_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/elasticsearch");
    for (name, is_stream) in [("index-template.json", false), ("data-stream-template.json", true)] {
        let (path, template) = (folder.join(name), index_template("pod2pod-", is_stream));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            fs::write(&path, template).unwrap();
        } else {
            assert_eq!(fs::read_to_string(&path).unwrap(), template, "{name}: run with UPDATE_EXPECT=1");
        }
    }
}

fn fields() -> String {
    let mut table = "| key | type | unit | meaning |\n|---|---|---|---|\n".to_owned();
    for field in fields::all() {
        let name = if field.key.ends_with('.') { "<name>" } else { "" };
        let always = match field.presence {
            Presence::Always => " (always)",
            Presence::OfTraffic => " (always, but for `ipvs_reuse`)",
            Presence::IfKnown => "",
        };
        let word = field.shape.word();
        writeln!(table, "| `{}{name}` | {word}{always} | {} | {} |", field.key, field.unit, field.sentence)
            .unwrap();
    }
    table
}

fn configuration() -> String {
    let mut table = "| key | environment | allowed | default | meaning |\n|---|---|---|---|---|\n".to_owned();
    for key in keys() {
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        let (path, environment) = (key.path, key.environment());
        writeln!(table, "| `{path}` | `{environment}` | {} | {default} | {} |", key.allowed, key.sentence)
            .unwrap();
    }
    table
}

fn sinks() -> String {
    let mut text = "| type | target | URLs |\n|---|---|---|\n".to_owned();
    for one in TYPES {
        let urls: Vec<_> = one.schemes.iter().map(|scheme| format!("`{scheme}://`")).collect();
        writeln!(text, "| `{}` | {} | {} |", one.word, one.sentence, urls.join(", ")).unwrap();
    }
    text.push_str("\nEvery sink has:\n\n");
    push_keys(&mut text, common_keys());
    for one in TYPES {
        write!(text, "\nThose of type `{}` also have:\n\n", one.word).unwrap();
        push_keys(&mut text, one.own_keys());
    }
    text
}

fn push_keys(text: &mut String, keys: impl Iterator<Item = &'static SinkKey>) {
    text.push_str("| key | allowed | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let default = if key.default.is_empty() { String::new() } else { format!("`{}`", key.default) };
        writeln!(text, "| `{}` | {} | {default} | {} |", key.path, key.allowed, key.sentence).unwrap();
    }
}

fn rights() -> String {
    let mut table =
        "| capability | in the manifests | what for | lost without it | kept by |\n|---|---|---|---|---|\n"
            .to_owned();
    for right in RIGHTS {
        let in_manifest = if right.in_manifest { "yes" } else { "no" };
        let mut kept: Vec<&str> = right.kept_by.iter().map(|part| part.as_str()).collect();
        kept.dedup();
        let (kept, name) = (kept.join(", "), right.capability.name());
        writeln!(table, "| `{name}` | {in_manifest} | {} | {} | {kept} |", right.why, right.lost).unwrap();
    }
    table
}

fn legacy() -> String {
    let mut table = "| variable | what it does here |\n|---|---|\n".to_owned();
    for name in NAMES {
        writeln!(table, "| `{}` | {} |", name.name, name.meaning).unwrap();
    }
    table
}
