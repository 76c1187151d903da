//! ARCHITECTURE.md tells the truth about the crates.

use std::collections::BTreeSet;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn every_crate_is_on_the_map_and_nothing_else() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let on_map: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("- **crates/")?.split_once("**").map(|(name, _)| name.to_owned()))
        .collect();
    let there: BTreeSet<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(on_map, there);
}

#[test]
fn every_document_is_in_the_list_of_documents() {
    let list = std::fs::read_to_string(root().join("docs/README.md")).unwrap();
    let names = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let names =
        names.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".md") && name != "README.md");
    let missing: Vec<String> = names.filter(|name| !list.contains(&format!("]({name})"))).collect();
    assert!(missing.is_empty(), "not in docs/README.md: {missing:?}");
}

#[test]
fn what_decides_knows_no_clock_socket_or_runtime() {
    for name in ["core", "analysis", "foresee", "series", "promql", "rules"] {
        let manifest = std::fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        for outside in ["tokio", "hyper", "rustix", "sqlx", "fastrand"] {
            assert!(!dependencies.contains(outside), "crates/{name} depends on {outside}");
        }
    }
}

#[test]
fn the_controller_names_no_adapter() {
    let manifest = std::fs::read_to_string(root().join("crates/controller/Cargo.toml")).unwrap();
    for adapter in ["store", "platform", "proxy", "agent", "wire"] {
        assert!(!manifest.contains(&format!("evenkeel-{adapter}")), "controller depends on {adapter}");
    }
}
