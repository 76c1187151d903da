//! Where evenkeel keeps its state, and what is in there.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// The folder that holds the state of one evenkeel.
const FOLDER: &str = ".evenkeel";
/// The controller's private socket.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;

/// The state directory of one evenkeel.
#[derive(Debug, Clone)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// The directory named by the user, or else the nearest `.evenkeel` of this user's here or above, or else one here.
    ///
    /// # Errors
    /// When the working directory cannot be told, or the directory is not this user's alone.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let here = std::env::current_dir()?;
        let absolute = |path: &Path| here.join(path);
        // Above may be folders where others can put one, such as /tmp.
        let is_own = |folder: &PathBuf| folder.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own_uid());
        let nearest = || here.ancestors().map(|folder| folder.join(FOLDER)).find(is_own);
        Self(named.map(absolute).or_else(nearest).unwrap_or_else(|| here.join(FOLDER))).checked()
    }

    /// The directory named by the user, or else `.evenkeel` beside the spec.
    ///
    /// # Errors
    /// When the working directory cannot be told, or the directory is not this user's alone.
    pub(crate) fn beside(named: Option<&Path>, spec: &Path) -> Result<Self, Failure> {
        let here = std::env::current_dir()?;
        let folder = here.join(spec).parent().map_or_else(|| here.clone(), Path::to_path_buf);
        Self(named.map_or_else(|| folder.join(FOLDER), |named| here.join(named))).checked()
    }

    /// Whoever can write here can pass for the controller, and have programs run.
    fn checked(self) -> Result<Self, Failure> {
        let path = self.0.display();
        let found = match fs::metadata(&self.0) {
            Ok(found) => found,
            // It is to be made yet; or it cannot even be looked at, and then nobody answers.
            Err(_) => return Ok(self),
        };
        let (owner, own, mode) = (found.uid(), own_uid(), found.mode() & 0o777);
        if owner != own {
            let why = format!("the state directory {path} belongs to user {owner}, and you are user {own}");
            return Err(Failure::Usage(format!("{why}\n  next: name one of your own with --state")));
        }
        if mode & OTHERS_WRITE != 0 {
            let why = format!("others may write to the state directory {path} (mode {mode:04o})");
            return Err(Failure::Usage(format!("{why}\n  next: chmod 700 {path}")));
        }
        Ok(self)
    }

    /// Makes the directory, for nobody else to read.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn make(&mut self) -> Result<(), Failure> {
        let logs = self.0.join("logs");
        DirBuilder::new().recursive(true).mode(0o700).create(&logs)?;
        self.0 = fs::canonicalize(&self.0)?;
        // Somebody may have been quicker.
        self.clone().checked().map(drop)
    }

    /// The directory.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The store.
    #[must_use]
    pub(crate) fn store(&self) -> PathBuf {
        self.0.join("evenkeel.db")
    }

    /// The token of the HTTP API.
    #[must_use]
    pub(crate) fn token(&self) -> PathBuf {
        self.0.join("token")
    }

    /// Where the HTTP API listens, as the controller wrote it.
    #[must_use]
    pub(crate) fn api_address(&self) -> PathBuf {
        self.0.join("api")
    }

    /// The log of one of evenkeel's own processes.
    #[must_use]
    pub(crate) fn own_log(&self, name: &str) -> PathBuf {
        self.0.join("logs").join(format!("{name}.log"))
    }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
