//! Where evenkeel keeps its state, and what is in there.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// The folder that holds the state of one evenkeel.
const FOLDER: &str = ".evenkeel";
/// The controller's private socket.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// The state directory of one evenkeel.
#[derive(Debug, Clone)]
pub(crate) struct Place(PathBuf);

impl Place {
    /// The directory named by the user, or else the nearest `.evenkeel` here or above, or else one here.
    ///
    /// # Errors
    /// When the working directory cannot be told.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let here = std::env::current_dir()?;
        let absolute = |path: &Path| here.join(path);
        let nearest = || here.ancestors().map(|folder| folder.join(FOLDER)).find(|folder| folder.is_dir());
        Ok(Self(named.map(absolute).or_else(nearest).unwrap_or_else(|| here.join(FOLDER))))
    }

    /// The directory named by the user, or else `.evenkeel` beside the spec.
    ///
    /// # Errors
    /// When the working directory cannot be told.
    pub(crate) fn beside(named: Option<&Path>, spec: &Path) -> Result<Self, Failure> {
        let here = std::env::current_dir()?;
        let folder = here.join(spec).parent().map_or_else(|| here.clone(), Path::to_path_buf);
        Ok(Self(named.map_or_else(|| folder.join(FOLDER), |named| here.join(named))))
    }

    /// Makes the directory, for nobody else to read.
    ///
    /// # Errors
    /// The file system's.
    pub(crate) fn make(&mut self) -> Result<(), Failure> {
        let logs = self.0.join("logs");
        DirBuilder::new().recursive(true).mode(0o700).create(&logs)?;
        self.0 = fs::canonicalize(&self.0)?;
        Ok(())
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
