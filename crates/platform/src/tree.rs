//! What lies in a folder, and the digest of it.
//!
//! The digest covers, for each entry in the order of the paths' bytes: what it is, its path, and the content of a file
//! (executable or not) or the target of a link. Owners, times, other modes and extended attributes are not part of it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use evenkeel_core::release::Digest;
use sha2::{Digest as _, Sha256};

use crate::artefact::{ENTRIES_MAX, KeepError};

/// Python writes it beside the sources it runs: never part of an artefact.
pub(crate) const PYTHON_CACHE: &str = "__pycache__";
/// In front of what is hashed, so that another way to hash gives other digests.
const HASH_VERSION: &[u8] = b"evenkeel artefact 1\n";

/// What an entry of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Folder,
    File { executable: bool },
    Link,
}

/// The entries of a tree by their path below its root. Every entry's folder is one of them.
pub(crate) type Tree = BTreeMap<PathBuf, Kind>;

/// What `metadata`, not followed through a link, says about `path`.
pub(crate) fn kind(path: &Path, metadata: &Metadata) -> Result<Kind, KeepError> {
    match metadata.file_type() {
        kind if kind.is_dir() => Ok(Kind::Folder),
        kind if kind.is_symlink() => Ok(Kind::Link),
        kind if kind.is_file() => Ok(Kind::File { executable: metadata.permissions().mode() & 0o111 != 0 }),
        _ => Err(KeepError::Special { path: path.into() }),
    }
}

/// Adds the entry `path` below `root`, and all below it, to the tree.
///
/// `skip` tells of a name in a folder, and of the whole path, whether that is left out.
pub(crate) fn walk(
    root: &Path,
    path: PathBuf,
    skip: impl Fn(&OsStr, &Path) -> bool,
    tree: &mut Tree,
) -> Result<(), KeepError> {
    let mut open = vec![path];
    while let Some(path) = open.pop() {
        let full = root.join(&path);
        let metadata = fs::symlink_metadata(&full).map_err(|error| KeepError::reading(&full, error))?;
        let kind = kind(&full, &metadata)?;
        if kind == Kind::Folder {
            open.extend(entries(&full, &path, &skip)?);
        }
        tree.insert(path, kind);
        if tree.len() + open.len() > ENTRIES_MAX {
            return Err(KeepError::TooMany { path: full });
        }
    }
    Ok(())
}

fn entries(full: &Path, path: &Path, skip: impl Fn(&OsStr, &Path) -> bool) -> Result<Vec<PathBuf>, KeepError> {
    let failed = |error| KeepError::reading(full, error);
    let mut found = Vec::new();
    for entry in fs::read_dir(full).map_err(failed)?.take(ENTRIES_MAX + 1) {
        let entry = entry.map_err(failed)?;
        if !skip(&entry.file_name(), &entry.path()) {
            found.push(path.join(entry.file_name()));
        }
    }
    Ok(found)
}

/// The digest of a tree as it lies below `root`.
pub(crate) fn digest(root: &Path, tree: &Tree) -> Result<Digest, KeepError> {
    let mut order: Vec<(&PathBuf, Kind)> = tree.iter().map(|(path, kind)| (path, *kind)).collect();
    order.sort_unstable_by_key(|(path, _)| path.as_os_str().as_bytes());
    let mut hash = Sha256::new_with_prefix(HASH_VERSION);
    for (path, kind) in order.into_iter().filter(|(path, _)| !path.as_os_str().is_empty()) {
        let full = root.join(path);
        let content = content(&full, kind).map_err(|error| KeepError::reading(&full, error))?;
        hash.update([letter(kind)]);
        update_with_length(&mut hash, path.as_os_str().as_bytes());
        update_with_length(&mut hash, &content);
    }
    Ok(Digest(hexadecimal(&hash.finalize())))
}

fn content(full: &Path, kind: Kind) -> io::Result<Vec<u8>> {
    match kind {
        Kind::Folder => Ok(Vec::new()),
        Kind::Link => Ok(fs::read_link(full)?.into_os_string().as_bytes().to_vec()),
        Kind::File { .. } => hash_file(full),
    }
}

fn hash_file(full: &Path) -> io::Result<Vec<u8>> {
    let (mut file, mut hash) = (File::open(full)?, Sha256::new());
    let mut block = vec![0; 128 << 10];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hash.finalize().to_vec()),
            read => hash.update(&block[..read]),
        }
    }
}

fn letter(kind: Kind) -> u8 {
    match kind {
        Kind::Folder => b'd',
        Kind::File { executable: false } => b'f',
        Kind::File { executable: true } => b'x',
        Kind::Link => b'l',
    }
}

fn update_with_length(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
