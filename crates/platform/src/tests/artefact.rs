use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_core::release::Digest;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::artefact::{Artefacts, KeepError};

/// A project and a state directory beside it.
struct Place {
    folder: TempDir,
    artefacts: Artefacts,
}

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Self { artefacts: Artefacts::new(&folder.path().join("state")), folder };
        fs::create_dir(place.path("")).unwrap();
        for (path, content) in files {
            place.write(path, content);
        }
        place
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("project").join(path)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn try_keep(&self, parts: &[&str]) -> Result<Digest, KeepError> {
        let parts: Vec<PathBuf> = parts.iter().map(PathBuf::from).collect();
        self.artefacts.keep(&self.path(""), &parts)
    }

    fn keep(&self, parts: &[&str]) -> Digest {
        self.try_keep(parts).unwrap()
    }

    fn refusal(&self, parts: &[&str]) -> String {
        self.try_keep(parts).unwrap_err().to_string()
    }

    /// The paths of what was kept, sorted.
    fn kept(&self, digest: &Digest) -> Vec<String> {
        let root = self.artefacts.directory(digest);
        let mut found = Vec::new();
        let mut open = vec![root.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                found.push(entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                }
            }
        }
        found.sort();
        found
    }

    /// The names in the folder of artefacts.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("state/artefacts")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

#[test]
fn the_same_content_is_kept_once_under_one_digest() {
    let place = Place::new(&[("app", "binary"), ("lib/a.py", "a")]);
    let first = place.keep(&["app", "lib"]);
    assert_eq!(place.keep(&["lib", "./app", "lib/a.py"]), first);
    assert_eq!(place.names(), [first.to_string()]);
    assert_eq!(place.kept(&first), ["app", "lib", "lib/a.py"]);
    assert_eq!(first.0.len(), 64);
}

#[test]
fn a_binary_rebuilt_in_place_leaves_the_kept_one_as_it_was() {
    let place = Place::new(&[("app", "version 1")]);
    let old = place.keep(&["app"]);
    place.write("app", "version 2");
    let new = place.keep(&["app"]);
    assert_ne!(old, new);
    let kept = |digest| fs::read_to_string(place.artefacts.directory(digest).join("app")).unwrap();
    assert_eq!([kept(&old), kept(&new)], ["version 1", "version 2"]);
}

#[test]
fn whether_a_file_can_be_executed_is_part_of_the_digest_and_other_modes_are_not() {
    let place = Place::new(&[("app", "x")]);
    let digest = |mode| {
        fs::set_permissions(place.path("app"), Permissions::from_mode(mode)).unwrap();
        place.keep(&["app"])
    };
    assert_eq!(digest(0o644), digest(0o600));
    assert_ne!(digest(0o644), digest(0o755));
    let kept = fs::metadata(place.artefacts.directory(&digest(0o755)).join("app")).unwrap();
    assert_eq!(kept.mode() & 0o777, 0o555);
}

#[test]
fn names_folders_and_links_are_part_of_the_digest() {
    let place = Place::new(&[("a/x", "1"), ("b/y", "1"), ("c/x", "1"), ("d/x", "1"), ("e/z", "1")]);
    fs::create_dir(place.path("c/empty")).unwrap();
    symlink("x", place.path("d/link")).unwrap();
    let digests: std::collections::BTreeSet<Digest> = ["a", "b", "c", "d", "e"].map(|part| place.keep(&[part])).into();
    assert_eq!(digests.len(), 5);
}

#[test]
fn links_within_the_artefact_stay_links_and_those_that_lead_out_are_named() {
    let place = Place::new(&[("app/bin/run", "x"), ("outside", "secret")]);
    let link = |target: &str| {
        let _ = fs::remove_file(place.path("app/link"));
        symlink(target, place.path("app/link")).unwrap();
    };
    for inside in ["bin/run", "./bin", "../app/bin/run", "nowhere", "link"] {
        link(inside);
        let kept = place.artefacts.directory(&place.keep(&["app"])).join("app/link");
        assert_eq!(fs::read_link(kept).unwrap(), Path::new(inside));
    }
    let absolute = place.path("app/bin/run").to_str().unwrap().to_owned();
    for out in ["../outside", "/etc/passwd", &absolute, "../../..", "../nowhere"] {
        link(out);
        let refusal = place.refusal(&["app"]);
        assert!(refusal.starts_with("app/link: this link leads to") && refusal.contains(out), "{refusal}");
    }
}

#[test]
fn a_link_may_lead_to_another_part() {
    let place = Place::new(&[("releases/5/app", "x")]);
    symlink("releases/5", place.path("current")).unwrap();
    assert!(place.refusal(&["current"]).contains("releases/5"));
    let kept = place.artefacts.directory(&place.keep(&["current", "releases/5"]));
    assert_eq!(fs::read_to_string(kept.join("current/app")).unwrap(), "x");
}

#[test]
fn parts_outside_the_directory_are_refused() {
    let place = Place::new(&[("app", "x"), ("real/file", "x")]);
    fs::write(place.path("../secret"), "x").unwrap();
    symlink("..", place.path("up")).unwrap();
    for part in ["../secret", "/etc/passwd", "real/../../secret", "up/secret"] {
        let error = place.try_keep(&["app", part]).unwrap_err();
        assert!(matches!(&error, KeepError::Outside { path } if path == Path::new(part)), "{error}");
    }
}

#[test]
fn what_is_missing_or_no_file_is_named() {
    let place = Place::new(&[("app/x", "x")]);
    assert!(place.refusal(&["app/gone"]).contains("app/gone: there is no such file"));
    assert!(matches!(place.try_keep(&[]), Err(KeepError::Nothing)));
    let _socket = UnixListener::bind(place.path("app/socket")).unwrap();
    assert!(place.refusal(&["app"]).contains("app/socket: neither a file"));
}

#[test]
fn what_tools_make_again_is_left_out_unless_a_part_names_it() {
    let files =
        ["app.js", ".git/HEAD", "target/debug/app", "node_modules/a/index.js", "node_modules/a/node_modules/b/x"];
    let place = Place::new(&files.map(|path| (path, "x")));
    place.write("lib/__pycache__/m.pyc", "x");
    place.write("lib/m.py", "x");
    assert_eq!(place.kept(&place.keep(&["."])), ["app.js", "lib", "lib/m.py"]);
    let named = place.kept(&place.keep(&["node_modules", "target/debug/app"]));
    assert!(named.contains(&"node_modules/a/node_modules/b/x".to_owned()), "{named:?}");
    assert!(named.contains(&"target/debug/app".to_owned()), "{named:?}");
}

#[test]
fn a_state_directory_inside_the_project_is_left_out_whatever_its_name() {
    let place = Place::new(&[("app", "x")]);
    let artefacts = Artefacts::new(&place.path("data"));
    let keep = || artefacts.keep(&place.path(""), &[PathBuf::from(".")]).unwrap();
    assert_eq!(keep(), keep());
}

#[test]
fn what_a_crash_left_of_a_copy_is_removed_and_a_copy_being_made_is_not() {
    let place = Place::new(&[("app", "x")]);
    let root = place.folder.path().join("state/artefacts");
    for left in [".unfinished-1-0/app", ".unfinished-2-0/app"] {
        fs::create_dir_all(root.join(left)).unwrap();
    }
    let being_made = fs::File::open(root.join(".unfinished-2-0")).unwrap();
    being_made.lock().unwrap();
    let digest = place.keep(&["app"]);
    let mut names = place.names();
    names.sort();
    assert_eq!(names, [".unfinished-2-0", &digest.0]);
}

#[test]
fn a_refused_artefact_leaves_nothing_behind() {
    let place = Place::new(&[("app/x", "x")]);
    symlink("/etc/passwd", place.path("app/link")).unwrap();
    place.refusal(&["app"]);
    assert!(place.names().is_empty());
}

#[test]
fn many_keepers_of_the_same_content_all_succeed() {
    let place = Place::new(&[("app", "x"), ("lib/a", "a")]);
    let digests: Vec<Digest> = std::thread::scope(|scope| {
        let keepers: Vec<_> = (0..8).map(|_| scope.spawn(|| place.keep(&["app", "lib"]))).collect();
        keepers.into_iter().map(|keeper| keeper.join().unwrap()).collect()
    });
    assert!(digests.iter().all(|digest| *digest == digests[0]));
    assert_eq!(place.names(), [digests[0].to_string()]);
}

#[test]
fn verifying_finds_changed_added_and_removed_files_but_not_pythons_cache() {
    let place = Place::new(&[("app.py", "x"), ("lib/a.py", "a")]);
    let digest = place.keep(&["app.py", "lib"]);
    let root = place.artefacts.directory(&digest);
    fs::create_dir(root.join("lib/__pycache__")).unwrap();
    fs::write(root.join("lib/__pycache__/a.pyc"), "cache").unwrap();
    place.artefacts.verify(&digest).unwrap();

    let spoiled = || matches!(place.artefacts.verify(&digest), Err(KeepError::Spoiled { .. }));
    fs::write(root.join("added"), "x").unwrap();
    assert!(spoiled());
    fs::remove_file(root.join("added")).unwrap();
    assert!(!spoiled());
    fs::remove_file(root.join("lib/a.py")).unwrap();
    assert!(spoiled());
    fs::write(root.join("lib/a.py"), "b").unwrap();
    assert!(spoiled());
    fs::remove_dir_all(&root).unwrap();
    assert!(matches!(place.artefacts.verify(&digest), Err(KeepError::Missing { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_order_in_which_files_were_made_does_not_matter(
        files in prop::collection::btree_map("[a-c.-]{1,3}x(/[a-c]{1,2}y){0,2}z", "[ -~]{0,9}", 1..8),
        seed: u64,
    ) {
        let make = |files: &[(&String, &String)]| {
            let place = Place::new(&[]);
            for (path, content) in files {
                place.write(path, content);
            }
            place.keep(&["."])
        };
        let mut order: Vec<_> = BTreeMap::iter(&files).collect();
        let sorted = make(&order);
        fastrand::Rng::with_seed(seed).shuffle(&mut order);
        prop_assert_eq!(make(&order), sorted);
    }
}

#[test]
fn artefacts_of_releases_that_are_no_more_are_removed_and_young_ones_stay() {
    let place = Place::new(&[("app", "1")]);
    let old = place.keep(&["app"]);
    place.write("app", "2");
    let live = place.keep(&["app"]);
    let there = |digest: &Digest| place.artefacts.directory(digest).is_dir();
    place.artefacts.retain(&[&live].into(), Duration::from_secs(60)).unwrap();
    assert!(there(&old), "it may belong to a deploy that is not decided yet");
    place.artefacts.retain(&[&live].into(), Duration::ZERO).unwrap();
    assert!(!there(&old) && there(&live));
    place.write("app", "1");
    assert_eq!(place.keep(&["app"]), old, "it can be kept anew");
    place.artefacts.verify(&old).unwrap();
}

#[test]
fn keeping_the_same_again_makes_it_young() {
    let place = Place::new(&[("app", "1")]);
    let digest = place.keep(&["app"]);
    let folder = fs::File::open(place.artefacts.directory(&digest)).unwrap();
    folder.set_modified(std::time::UNIX_EPOCH).unwrap();
    place.keep(&["app"]);
    place.artefacts.retain(&[].into(), Duration::from_secs(60)).unwrap();
    place.artefacts.verify(&digest).unwrap();
}

#[test]
fn what_was_changed_since_it_was_kept_is_replaced_by_whoever_keeps_it_again() {
    let place = Place::new(&[("app", "1"), ("more/data", "2")]);
    let digest = place.keep(&["app", "more"]);
    let kept = place.artefacts.directory(&digest);
    fs::remove_file(kept.join("app")).unwrap();
    fs::write(kept.join("app"), "changed").unwrap();
    let names = place.names();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(place.keep(&["app", "more"]), digest));
        }
    });
    place.artefacts.verify(&digest).unwrap();
    assert_eq!(place.names(), names);
}

#[test]
fn whoever_makes_room_meets_others_who_do() {
    let place = Place::new(&[("app", "1")]);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let ordering = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(ordering) {
                    place.artefacts.retain(&[].into(), Duration::ZERO).unwrap();
                }
            });
        }
        for version in 0..200 {
            let name = format!("app-{version}");
            place.write(&name, &name);
            place.try_keep(&[&name]).unwrap();
        }
        stop.store(true, ordering);
    });
}
