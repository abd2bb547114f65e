//! The README's tables are the code's. `UPDATE_EXPECT=1` writes them.

use std::{fmt::Write as _, fs, path::Path};

use pod2pod_user::{
    config::keys::keys,
    record::{field::Presence, fields::FIELDS},
};

#[test]
fn tables_are_as_the_code_has_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let mut readme = fs::read_to_string(&path).unwrap();
    for (name, table) in [("fields", fields()), ("configuration", configuration())] {
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

fn fields() -> String {
    let mut table = "| key | type | unit | meaning |\n|---|---|---|---|\n".to_owned();
    for field in FIELDS {
        let name = if field.key.ends_with('.') { "<name>" } else { "" };
        let always = if field.presence == Presence::Always { " (always)" } else { "" };
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
