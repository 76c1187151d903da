//! What a release consists of, copied to where later changes cannot reach it.
//!
//! An artefact lies in `<state>/artefacts/<digest>`, where its parts have the paths they had below the spec's
//! directory. It gets that name last, complete and synced. Its files are read-only, its folders are not: programs may
//! write beside themselves.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use evenkeel_core::ports::PlatformError;
use evenkeel_core::release::Digest;
use rustix::fs::OFlags;

use crate::tree::{self, Kind, PYTHON_CACHE, Tree};

/// Left out wherever they lie inside a folder that is kept: what tools make again from the rest, and evenkeel's own.
/// A part that names one of them, or lies in one, is kept with all that is in it, but for `__pycache__`.
pub const SKIPPED: [&str; 5] = [".evenkeel", ".git", "target", "node_modules", PYTHON_CACHE];
/// Files, folders and links of one artefact, at most.
pub const ENTRIES_MAX: usize = 200_000;
/// Bytes of one artefact, at most.
pub const BYTES_MAX: u64 = 4 << 30;
/// In front of the name of a copy that is being made.
const UNFINISHED: &str = ".unfinished-";
/// Up to so many files are synced one by one; beyond, syncing the whole file system is quicker.
const SYNCED_SINGLY_MAX: usize = 256;

/// Why something cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// There is no part to keep.
    #[error("the artefact names no file")]
    Nothing,
    /// A part is not there.
    #[error("{path}: there is no such file")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A part is not below the directory.
    #[error("{path}: an artefact's files lie below the directory of its spec")]
    Outside {
        /// The part.
        path: PathBuf,
    },
    /// A part lies in what Python makes by itself, and which is never kept.
    #[error("{path}: `{PYTHON_CACHE}` is never part of an artefact; name the sources")]
    Cache {
        /// The part.
        path: PathBuf,
    },
    /// A link leads to something that is not kept.
    #[error("{path}: this link leads to {target}, which is not part of the artefact")]
    LinkOutside {
        /// The link.
        path: PathBuf,
        /// What it says.
        target: PathBuf,
    },
    /// A socket, pipe or device.
    #[error("{path}: neither a file, a folder nor a link")]
    Special {
        /// Which one.
        path: PathBuf,
    },
    /// A file was written to meanwhile.
    #[error("{path}: changed while it was copied; deploy when the build has finished")]
    Changed {
        /// Which one.
        path: PathBuf,
    },
    /// More than [`ENTRIES_MAX`].
    #[error("{path}: with this, the artefact has more than {ENTRIES_MAX} files")]
    TooMany {
        /// Where counting stopped.
        path: PathBuf,
    },
    /// More than [`BYTES_MAX`].
    #[error("{path}: with this, the artefact is larger than {} GiB", BYTES_MAX >> 30)]
    TooLarge {
        /// Where counting stopped.
        path: PathBuf,
    },
    /// What is kept is not what its digest says.
    #[error("{path}: changed since it was kept; deploy the version again")]
    Spoiled {
        /// The kept folder.
        path: PathBuf,
    },
    /// The user's file cannot be read.
    #[error("{path}: {cause}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says; not a `source`, since nobody walks further than this text.
        cause: io::Error,
    },
    /// The state directory cannot be written.
    #[error("{path}: {cause}")]
    Environment {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

impl KeepError {
    /// An error met while reading `path`.
    pub(crate) fn reading(path: &Path, cause: io::Error) -> Self {
        let path = path.into();
        if cause.kind() == ErrorKind::NotFound { Self::Missing { path } } else { Self::Unreadable { path, cause } }
    }

    fn writing(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::Environment { path: path.into(), cause }
    }
}

impl From<KeepError> for PlatformError {
    fn from(error: KeepError) -> Self {
        let words = error.to_string();
        if matches!(error, KeepError::Environment { .. }) { Self::Unavailable(words) } else { Self::Refused(words) }
    }
}

/// The artefacts below a state directory. Every method blocks.
#[derive(Debug, Clone)]
pub struct Artefacts {
    state: PathBuf,
    root: PathBuf,
}

impl Artefacts {
    /// Those of the state directory `state`.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { state: state.into(), root: state.join("artefacts") }
    }

    /// Where an artefact lies, kept or not.
    #[must_use]
    pub fn directory(&self, digest: &Digest) -> PathBuf {
        self.root.join(&digest.0)
    }

    /// Keeps `parts`, files and folders below `directory`. The same content gives the same digest.
    ///
    /// # Errors
    /// [`KeepError::Environment`] is the machine's; everything else is for the user to mend.
    pub fn keep(&self, directory: &Path, parts: &[PathBuf]) -> Result<Digest, KeepError> {
        let tree = self.plan(directory, parts)?;
        let copy = self.begin()?;
        copy_all(directory, &tree, &copy.path)?;
        check_links(directory, &tree, &copy.path)?;
        // Of what was copied, not of the original: that may have changed since.
        let digest = tree::digest(&copy.path, &tree)?;
        sync(&copy.path, &tree).map_err(KeepError::writing(&copy.path))?;
        self.name(copy, &digest)?;
        Ok(digest)
    }

    /// Removes every artefact but those of `live` and those that were kept, or kept once more, within `young`.
    ///
    /// # Errors
    /// The file system's; what was not removed is tried again next time.
    pub fn retain(&self, live: &BTreeSet<&Digest>, young: Duration) -> io::Result<()> {
        let entries = match fs::read_dir(&self.root) {
            Err(missing) if missing.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(found) = unless_gone(entry.metadata())? else { continue };
            let age = found.modified()?.elapsed().unwrap_or_default();
            if name.starts_with(UNFINISHED) || age < young || live.contains(&Digest(name.clone())) {
                continue;
            }
            // By another name first: what has an artefact's name is complete.
            let leaving = self.root.join(format!("{UNFINISHED}{name}"));
            unless_gone(fs::rename(entry.path(), &leaving))?;
            unless_gone(fs::remove_dir_all(leaving))?;
        }
        Ok(())
    }

    /// Reads an artefact again, to be sure that it is as it was kept.
    ///
    /// # Errors
    /// [`KeepError::Spoiled`] when it is not; [`KeepError::Missing`] when it is gone.
    pub fn verify(&self, digest: &Digest) -> Result<(), KeepError> {
        let path = self.directory(digest);
        let mut tree = Tree::new();
        tree::walk(&path, PathBuf::new(), |name, _| name == PYTHON_CACHE, &mut tree)?;
        if tree::digest(&path, &tree)? == *digest { Ok(()) } else { Err(KeepError::Spoiled { path }) }
    }

    /// The files and links that are in only one of two artefacts, or differ between them, in order.
    ///
    /// # Errors
    /// [`KeepError::Missing`] when one of them is not kept.
    pub fn changed(&self, from: &Digest, to: &Digest) -> Result<Vec<PathBuf>, KeepError> {
        let tree = |digest: &Digest| {
            let (path, mut tree) = (self.directory(digest), Tree::new());
            tree::walk(&path, PathBuf::new(), |name, _| name == PYTHON_CACHE, &mut tree)?;
            Ok::<_, KeepError>((path, tree))
        };
        let ((old, before), (new, after)) = (tree(from)?, tree(to)?);
        let all: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
        let mut changed = Vec::new();
        for path in all {
            let (a, b) = (before.get(path), after.get(path));
            // A folder says nothing that its files do not say.
            let is_folder = [a, b].into_iter().flatten().all(|kind| *kind == Kind::Folder);
            if !is_folder && (a != b || !is_alike(&old.join(path), &new.join(path), b)?) {
                changed.push(path.clone());
            }
        }
        Ok(changed)
    }

    /// What is to be copied.
    fn plan(&self, directory: &Path, parts: &[PathBuf]) -> Result<Tree, KeepError> {
        let own = fs::canonicalize(&self.state).ok();
        let base = fs::canonicalize(directory).map_err(|error| KeepError::reading(directory, error))?;
        let mut tree = Tree::new();
        for part in parts {
            let part = inside(directory, &base, part)?;
            let named = |name: &str| part.components().any(|component| component.as_os_str() == name);
            let skipped: Vec<&str> = SKIPPED.into_iter().filter(|name| *name == PYTHON_CACHE || !named(name)).collect();
            let skip = |name: &OsStr, path: &Path| {
                skipped.iter().any(|skipped| name == *skipped)
                    || own.as_ref().is_some_and(|own| own.file_name() == Some(name) && is_same(path, own))
            };
            tree::walk(directory, part.clone(), skip, &mut tree)?;
            let above = part.ancestors().skip(1).map(|folder| (folder.to_path_buf(), Kind::Folder));
            tree.extend(above);
        }
        if tree.keys().all(|path| path.as_os_str().is_empty()) { Err(KeepError::Nothing) } else { Ok(tree) }
    }

    /// A folder for a new copy. Removes those that nobody finished.
    fn begin(&self) -> Result<Copy, KeepError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{UNFINISHED}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = self.root.join(name);
        let begun = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.root)?;
            // Held while one's folder is made and locked, so that no other takes it for abandoned in between.
            let root = File::open(&self.root)?;
            root.lock()?;
            self.remove_abandoned()?;
            fs::create_dir(&path)?;
            let lock = File::open(&path)?;
            lock.lock()?;
            io::Result::Ok(lock)
        };
        let lock = begun().map_err(KeepError::writing(&path))?;
        Ok(Copy { path, _lock: lock })
    }

    /// A copy that is being made is locked; the lock goes with its process.
    fn remove_abandoned(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let unfinished = entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes());
            if unfinished
                && let Some(folder) = unless_gone(File::open(entry.path()))?
                && folder.try_lock().is_ok()
            {
                unless_gone(fs::remove_dir_all(entry.path()))?;
            }
        }
        Ok(())
    }

    /// Gives a copy its name, unless the same content was kept before and is still as it was.
    fn name(&self, copy: Copy, digest: &Digest) -> Result<(), KeepError> {
        let place = self.directory(digest);
        let named = || match fs::rename(&copy.path, &place) {
            Err(error) if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) => {
                if self.verify(digest).is_ok() { touch(&place) } else { self.replace(&copy, digest) }
            }
            Err(error) => Err(error),
            Ok(()) => File::open(&self.root)?.sync_all(),
        };
        named().map_err(KeepError::writing(&place))
    }

    /// Puts a copy in the place of what was kept and then changed.
    ///
    /// What runs from there goes on with the files it has open; whoever starts next gets what was kept.
    fn replace(&self, copy: &Copy, digest: &Digest) -> io::Result<()> {
        let root = File::open(&self.root)?;
        root.lock()?;
        let place = self.directory(digest);
        // Somebody else may have been quicker.
        if self.verify(digest).is_ok() {
            return touch(&place);
        }
        let aside = self.root.join(format!("{UNFINISHED}spoiled-{}", digest.0));
        unless_gone(fs::remove_dir_all(&aside))?;
        unless_gone(fs::rename(&place, &aside))?;
        fs::rename(&copy.path, &place)?;
        root.sync_all()?;
        unless_gone(fs::remove_dir_all(&aside)).map(drop)
    }
}

/// `None` for what somebody else was quicker to remove.
fn unless_gone<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(gone) if gone.kind() == ErrorKind::NotFound => Ok(None),
        outcome => outcome.map(Some),
    }
}

/// A copy that is being made, and gone with this value unless it got a name.
#[derive(Debug)]
struct Copy {
    path: PathBuf,
    _lock: File,
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether two entries of one kind say the same.
fn is_alike(a: &Path, b: &Path, kind: Option<&Kind>) -> Result<bool, KeepError> {
    if kind == Some(&Kind::Link) {
        let target = |path: &Path| fs::read_link(path).map_err(|error| KeepError::reading(path, error));
        return Ok(target(a)? == target(b)?);
    }
    let open = |path: &Path| File::open(path).map_err(|error| KeepError::reading(path, error));
    let (mut first, mut second) = (open(a)?, open(b)?);
    let length = |file: &File| file.metadata().map(|metadata| metadata.len());
    let differ = |error| KeepError::reading(b, error);
    if length(&first).map_err(differ)? != length(&second).map_err(differ)? {
        return Ok(false);
    }
    let mut parts = ([0; 1 << 16], [0; 1 << 16]);
    loop {
        let read = first.read(&mut parts.0).map_err(differ)?;
        if read == 0 {
            return Ok(true);
        }
        // As long as the first by now: what was kept does not change.
        match second.read_exact(&mut parts.1[..read]) {
            Ok(()) if parts.0[..read] == parts.1[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) => return Err(KeepError::reading(b, error)),
        }
    }
}

/// Makes a folder as young as if it had been made now.
fn touch(path: &Path) -> io::Result<()> {
    let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
    let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
    Ok(rustix::fs::futimens(File::open(path)?, &times)?)
}

/// The part as a path below `directory`, without `.` in it.
fn inside(directory: &Path, base: &Path, part: &Path) -> Result<PathBuf, KeepError> {
    let outside = || KeepError::Outside { path: part.into() };
    let mut plain = PathBuf::new();
    for component in part.components() {
        match component {
            Component::CurDir => {}
            Component::Normal(name) => plain.push(name),
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => return Err(outside()),
        }
    }
    if plain.iter().any(|name| name == PYTHON_CACHE) {
        return Err(KeepError::Cache { path: part.into() });
    }
    // A folder on the way may be a link; where it leads, other parts' paths would not.
    let folder = directory.join(plain.parent().unwrap_or(Path::new("")));
    let real = fs::canonicalize(&folder).map_err(|error| KeepError::reading(&folder, error))?;
    let straight = base.join(plain.parent().unwrap_or(Path::new("")));
    if real == straight { Ok(plain) } else { Err(outside()) }
}

fn is_same(path: &Path, real: &Path) -> bool {
    fs::canonicalize(path).is_ok_and(|path| path == real)
}

/// Copies the entries in order, folders before what lies in them.
fn copy_all(directory: &Path, tree: &Tree, copy: &Path) -> Result<(), KeepError> {
    let mut left = BYTES_MAX;
    for (path, kind) in tree.iter().filter(|(path, _)| !path.as_os_str().is_empty()) {
        let (from, to) = (directory.join(path), copy.join(path));
        match kind {
            Kind::Folder => make_folder(&to).map_err(KeepError::writing(&to))?,
            Kind::File { executable } => left -= copy_file(&from, &to, *executable, left)?,
            Kind::Link => copy_link(&from, &to)?,
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

fn copy_link(from: &Path, to: &Path) -> Result<(), KeepError> {
    let target = fs::read_link(from).map_err(|error| KeepError::reading(from, error))?;
    symlink(target, to).map_err(KeepError::writing(to))
}

/// Copies at most `left` bytes and says how many there were.
fn copy_file(from: &Path, to: &Path, executable: bool, left: u64) -> Result<u64, KeepError> {
    let reading = |error| KeepError::reading(from, error);
    // Neither follows a link nor waits for a pipe that has taken the file's place since it was seen.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut source = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(from).map_err(reading)?;
    let before = source.metadata().map_err(reading)?;
    if !before.is_file() {
        return Err(KeepError::Special { path: from.into() });
    }
    if before.len() > left {
        return Err(KeepError::TooLarge { path: from.into() });
    }
    let target = OpenOptions::new().write(true).create_new(true).open(to);
    // Within the kernel, and by sharing blocks, where the file system can.
    let copied = target.and_then(|mut target| {
        let copied = io::copy(&mut (&mut source).take(left + 1), &mut target)?;
        target.set_permissions(Permissions::from_mode(if executable { 0o555 } else { 0o444 }))?;
        Ok(copied)
    });
    let copied = copied.map_err(KeepError::writing(to))?;
    let after = source.metadata().map_err(reading)?;
    let stamp = |file: &fs::Metadata| (file.len(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec());
    if stamp(&before) != stamp(&after) || copied != before.len() {
        return Err(KeepError::Changed { path: from.into() });
    }
    Ok(copied)
}

/// Every link must lead to something that was kept, or lead nowhere just as it did before.
fn check_links(directory: &Path, tree: &Tree, copy: &Path) -> Result<(), KeepError> {
    let real = fs::canonicalize(copy).map_err(KeepError::writing(copy))?;
    for (path, _) in tree.iter().filter(|(_, kind)| **kind == Kind::Link) {
        let target = fs::read_link(copy.join(path)).map_err(KeepError::writing(copy))?;
        let leads_inside = match fs::canonicalize(copy.join(path)) {
            Ok(end) => end.starts_with(&real),
            Err(_) => is_plain(&target) && !directory.join(path).exists(),
        };
        if target.is_absolute() || !leads_inside {
            return Err(KeepError::LinkOutside { path: path.clone(), target });
        }
    }
    Ok(())
}

/// Whether a target can only ever be below the link's own folder.
fn is_plain(target: &Path) -> bool {
    target.components().all(|component| matches!(component, Component::Normal(_) | Component::CurDir))
}

/// Brings the copy to the disk before its name can be seen.
fn sync(copy: &Path, tree: &Tree) -> io::Result<()> {
    let root = File::open(copy)?;
    if tree.len() > SYNCED_SINGLY_MAX {
        return Ok(rustix::fs::syncfs(&root)?);
    }
    for (path, _) in tree.iter().filter(|(_, kind)| **kind != Kind::Link) {
        File::open(copy.join(path))?.sync_all()?;
    }
    root.sync_all()
}
